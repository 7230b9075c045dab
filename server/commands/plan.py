"""Print the resolved run and every broken rule at once; nothing is started.

With --machine also what this machine has and lacks for it: weights, folders, device, cores, disk. How many cases each
center of a simulation has is counted by `python -m simulations plan`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

EXAMPLE = "python -m server plan curriculum=quickstart steps.tumour_ct.rounds=5"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart")
    parser.add_argument("--machine", action="store_true", help="also check weights, folders, device, cores and disk")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 2 when a rule is broken or, with --machine, something is missing here."""
    from common.config.load import compose_run, run_to_yaml
    from common.config.rules import broken_rules

    composed = compose_run(arguments.overrides)
    print(run_to_yaml(composed))
    facts: list[str] = []
    problems = [f"broken rule: {problem}" for problem in broken_rules(composed)]
    if arguments.machine:
        from server.run.machine import machine_facts, machine_problems

        facts, missing = machine_facts(composed), machine_problems(composed)
        problems += [f"missing here: {problem}" for problem in missing]
    return say_plan(len(composed.steps), facts, problems)


def say_plan(steps: int, facts: Sequence[str], problems: Sequence[str]) -> int:
    """Print what was found; the exit code."""
    for fact in facts:
        print(fact)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{steps} steps, no broken rule.")
    return 2 if problems else 0
