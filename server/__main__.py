"""python -m server {plan,verify,report,withdraw}: look at a run before it starts, prove it afterwards, and read it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from common.cli import run_command
from common.offline import go_offline

EXAMPLES = """examples:
  python -m server plan curriculum=quickstart steps.tumour_ct.rounds=5
  python -m server verify runs/quickstart
  python -m server report runs/quickstart
  python -m server withdraw runs/quickstart --center CHUM
"""


def main(argv: list[str] | None = None) -> int:
    """Parse, call one function, print."""
    parser = argparse.ArgumentParser(
        prog="python -m server", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="print the resolved run and every broken rule")
    plan.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart")
    for name, text in (
        ("verify", "recompute every step's probe in this process"),
        ("report", "write the report again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")
    leaving = commands.add_parser("withdraw", help="take a center out of what was fitted from its sums")
    leaving.add_argument("folder", type=Path, help="a run folder, e.g. runs/quickstart")
    leaving.add_argument("--center", required=True, help="the code of the center that leaves, e.g. CHUM")
    arguments = parser.parse_args(argv)
    go_offline()
    actions = {
        "plan": lambda: _plan(arguments.overrides),
        "verify": lambda: _verify(arguments.folder),
        "report": lambda: _report(arguments.folder),
        "withdraw": lambda: _withdraw(arguments.folder, arguments.center),
    }
    return run_command(actions[arguments.command])


def _plan(overrides: list[str]) -> int:
    from common.config.load import compose_run, run_to_yaml
    from common.config.rules import broken_rules

    run = compose_run(overrides)
    print(run_to_yaml(run))
    problems = broken_rules(run)
    for problem in problems:
        print(f"broken rule: {problem}", file=sys.stderr)
    if not problems:
        print(f"{len(run.steps)} steps, no broken rule.")
    return 2 if problems else 0


def _verify(path: Path) -> int:
    from server.finish import verify_folder

    found = verify_folder(path)
    print(json.dumps({"changed_bits": found.changed_bits, "base_after": found.base_after}))
    return 0 if found.total == 0 else 1


def _report(path: Path) -> int:
    from server.finish import write_outputs

    print(write_outputs(path))
    return 0


def _withdraw(path: Path, center: str) -> int:
    from server.withdraw import withdraw

    for done in withdraw(path, center):
        print(done.told)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
