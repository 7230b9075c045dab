"""python -m server: the coordinator's commands, from a planned run to its exported adapters."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from common.cli import run_command
from common.offline import go_offline
from server.tools import COMMANDS


def main(argv: list[str] | None = None) -> int:
    """Parse, call one command's ``run``, return its exit code; only the chosen command's file is imported."""
    words = sys.argv[1:] if argv is None else argv
    chosen = next((word for word in words if word in COMMANDS), None)
    arguments = _parser(chosen).parse_args(words)
    go_offline()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    module = importlib.import_module(f"server.tools.{arguments.command}")
    return run_command(lambda: module.run(arguments))


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description=__doc__,
        epilog="begin with: python -m server plan curriculum=quickstart\n"
        "one command in detail: python -m server start --help",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=purpose)
            continue
        module = importlib.import_module(f"server.tools.{name}")
        command = commands.add_parser(
            name,
            help=purpose,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        module.arguments(command)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
