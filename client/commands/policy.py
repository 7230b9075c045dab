"""Say in plain sentences what a coordinator can and cannot ask of this hospital, each with the field that decides.

Without --explain it only checks that the policy can be read, and prints it in one sentence.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from client.commands.files import DEFAULT

EXAMPLE = "python -m client policy --explain center.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("center", type=Path, nargs="?", default=DEFAULT, help="this center's file (center.yaml)")
    parser.add_argument("--explain", action="store_true", help="every sentence, not only the short form")
    parser.add_argument("--json", action="store_true", help="the sentences as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the policy. Raises ConfigError."""
    from client.center.config import read_config
    from client.policy.explain import HEADS, explained, in_short

    config = read_config(arguments.center)
    sentences = explained(config.policy)
    if arguments.json:
        told = [{"about": one.about, "says": one.says, "field": one.decided_by} for one in sentences]
        print(json.dumps({"center": config.code, "sentences": told}, indent=1))
        return 0
    print(f"{config.code}: {in_short(config.policy)}")
    for about, head in HEADS.items() if arguments.explain else ():
        print(f"\n{head}")
        for one in (one for one in sentences if one.about == about):
            print(f"  - {one.says}. [{one.decided_by}]")
    return 0
