"""python -m simulations {run,phantom}: whole federations on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import run_command
from common.offline import go_offline

EXAMPLES = """examples:
  python -m simulations run curriculum=quickstart
  python -m simulations run curriculum=smoke name=try1 runtime.workers=1
  python -m simulations phantom --out data/phantom --scale 0.2 --seed 11
"""


def main(argv: list[str] | None = None) -> int:
    """Parse, call one function, print."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a curriculum over LocalGrid and write its report")
    run.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. curriculum=quickstart name=mine")
    phantom = commands.add_parser("phantom", help="make the synthetic cohort on disk")
    phantom.add_argument("--out", type=Path, required=True)
    phantom.add_argument("--scale", type=float, default=0.2, help="1.0 is HECKTOR's 524 patients")
    phantom.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args(argv)
    go_offline()
    actions = {"run": _run, "phantom": _phantom}
    return run_command(lambda: actions[arguments.command](arguments))


def _run(arguments: argparse.Namespace) -> None:
    import json

    from rich.console import Console

    from server.report.console import summary_table
    from simulations.run import simulate

    folder = simulate(arguments.overrides)
    Console().print(summary_table(json.loads(folder.results.read_text())))
    print(f"report: {folder.report}")


def _phantom(arguments: argparse.Namespace) -> None:
    from simulations.phantom import make_cohort

    card = make_cohort(arguments.out, scale=arguments.scale, seed=arguments.seed)
    print(f"{arguments.out}: {card}")


if __name__ == "__main__":
    raise SystemExit(main())
