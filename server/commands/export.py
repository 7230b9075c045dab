"""Write a run's bank to a new folder: adapters, what each is for, and a signature over every file.

A hospital predicts from it without any server. The signing key is made at the first export; tell hospitals its
fingerprint once, on a channel that you trust. With --bundle one lineage is written as a MONAI bundle instead, which
runs with torch and MONAI alone; it is not signed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = (
    "python -m server export federation/runs/first --out adapters-2026-11 --key federation/signing.key\n"
    "  python -m server export federation/runs/first --out tumour-bundle --bundle tumour_ct"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--key", type=Path, help="the coordinator's signing key; made where absent")
    parser.add_argument("--bundle", metavar="LINEAGE", help="instead: this lineage's head as a MONAI bundle")
    parser.add_argument("--all", action="store_true", help="every adapter of the bank, not only each lineage's head")


def run(arguments: argparse.Namespace) -> int:
    """Write it and print the manifest's path and the signer's fingerprint."""
    from common.errors import ConfigError
    from common.store.exported import check_export
    from server.run.export import export
    from server.run.folder import existing

    if arguments.bundle is not None:
        from server.bundle.write import write_bundle

        print(write_bundle(existing(arguments.folder), arguments.bundle, arguments.out) / "docs" / "README.md")
        return 0
    if arguments.key is None:
        raise ConfigError("Name the coordinator's signing key with --key FILE (it is made where absent), or --bundle.")
    manifest = export(existing(arguments.folder), arguments.out, key=arguments.key, everything=arguments.all)
    check_export(arguments.out)
    print(manifest)
    return 0
