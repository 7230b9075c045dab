"""Print the resolved run and every broken rule at once; nothing is started.

With --machine also what this machine has and lacks for it: weights, folders, device, cores, disk. How many cases each
center of a simulation has is counted by `python -m simulations plan`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.config.run import Run

Found = tuple[list[str], list[str]]

EXAMPLE = "python -m server plan curriculum=quickstart steps.tumour_ct.rounds=5"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart")
    parser.add_argument("--machine", action="store_true", help="also check weights, folders, device, cores and disk")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 2 when a rule is broken or, with --machine, something is missing here."""
    from server.run.composed import composed_run

    return plan(composed_run(arguments.overrides), machine=arguments.machine)


def plan(
    run: Run, *, machine: bool, cohort: Callable[[Run], Found] = lambda run: ([], []), may_be_open: bool = False
) -> int:
    """Print a run, what is here for it and every problem; the exit code.

    Args:
        machine: whether this machine is looked at too.
        cohort: what is here of the run's data and what is wrong with it, looked at with ``machine``.
        may_be_open: whether steps may leave something to the data folder: those rules wait until it is asked.
    """
    from common.config.load import run_to_yaml
    from common.config.rules import broken_rules

    print(run_to_yaml(run))
    problems = [f"broken rule: {problem}" for problem in broken_rules(run, may_be_open=may_be_open)]
    if machine:
        from server.run.machine import machine_facts, machine_problems

        facts, missing = cohort(run)
        print("\n".join([*machine_facts(run), *facts]))
        problems += [f"missing here: {problem}" for problem in dict.fromkeys([*machine_problems(run), *missing])]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{len(run.steps)} steps, no broken rule.")
    return 2 if problems else 0
