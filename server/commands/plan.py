"""Print the resolved run and every broken rule at once; nothing is started."""

from __future__ import annotations

import argparse
import sys

EXAMPLE = "python -m server plan curriculum=quickstart steps.tumour_ct.rounds=5"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 2 when a rule is broken."""
    from common.config.load import compose_run, run_to_yaml
    from common.config.rules import broken_rules

    composed = compose_run(arguments.overrides)
    print(run_to_yaml(composed))
    problems = broken_rules(composed)
    for problem in problems:
        print(f"broken rule: {problem}", file=sys.stderr)
    if not problems:
        print(f"{len(composed.steps)} steps, no broken rule.")
    return 2 if problems else 0
