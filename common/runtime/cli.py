"""What every command line shares: one file a command, and errors that end as sentences with exit code 2."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence

from common.errors import FedgraftError
from common.runtime.offline import go_offline


def run_tool(
    package: str,
    commands: Mapping[str, str],
    argv: Sequence[str] | None,
    *,
    description: str | None,
    first: str,
    detail: str,
) -> int:
    """Parse, call one command's ``run``, return its exit code; only the chosen command's file is imported.

    Args:
        package: ``client`` or ``server``; its commands are modules of ``<package>.commands`` with `arguments`,
            `run` and EXAMPLE.
        commands: name -> what it is for.
        first, detail: the commands that the help text names to begin with and for more help.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if word in commands), None)
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=description,
        epilog=f"begin with: python -m {package} {first}\none command in detail: python -m {package} {detail} --help",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    _add_commands(parser, package, commands, chosen)
    arguments = parser.parse_args(words)
    go_offline()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    module = importlib.import_module(f"{package}.commands.{arguments.command}")
    return run_command(lambda: module.run(arguments))


def _add_commands(
    parser: argparse.ArgumentParser, package: str, commands: Mapping[str, str], chosen: str | None
) -> None:
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in commands.items():
        if name != chosen:
            added.add_parser(name, help=purpose)
            continue
        module = importlib.import_module(f"{package}.commands.{name}")
        command = added.add_parser(
            name,
            help=purpose,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        module.arguments(command)


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command; a FedgraftError is printed, one sentence a line, and becomes exit code 2."""
    try:
        return command() or 0
    except FedgraftError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. Start the same command again to continue after the last finished round.", file=sys.stderr)
        return 130
