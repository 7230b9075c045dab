"""What a backbone and every adapter on it weigh, without its weights."""

from __future__ import annotations

import argparse
import json

EXAMPLE = "python -m server inspect backbone=swin_unetr"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. backbone=swin_unetr")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--run", metavar="FOLDER", help="instead: what a run's frozen model grew to, stage by stage")
    parser.add_argument("--digest", action="store_true", help="load the weights and print their SHA-256 instead")
    parser.add_argument("--table", action="store_true", help="docs/results/sizes.md: the real sizes of every backbone")


def run(arguments: argparse.Namespace) -> int:
    """Print sizes, or a digest."""
    from dataclasses import asdict
    from pathlib import Path

    if arguments.run is not None:
        from server.bases.listed import listed

        print(listed(Path(arguments.run)))
        return 0
    from common.config.load import compose_run

    composed = compose_run(arguments.overrides)  # a typo is answered before PyTorch is imported
    from common.backbones import backbone_digest, load_backbone
    from server.sizes.inspection import described, sizes_page
    from server.sizes.sizes import backbone_sizes

    if arguments.table:
        print(sizes_page(), end="")
        return 0
    if arguments.digest:
        print(backbone_digest(load_backbone(composed.backbone)))
        return 0
    asked = any(override.startswith(("curriculum=", "steps.")) for override in arguments.overrides)
    sizes = backbone_sizes(composed.backbone, composed.steps if asked else None)
    print(json.dumps(asdict(sizes), indent=2) if arguments.json else described(sizes))
    return 0
