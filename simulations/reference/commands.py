"""docs/reference/commands.md: every command of the three packages with its options, from their parsers."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

from simulations.reference.markdown import generated, table

INTRODUCTION = (
    "The coordinator has `python -m server`, a hospital `python -m client`, and whoever simulates\n"
    "`python -m simulations`. Each command says the same with `--help`. Bad input ends with one sentence per\n"
    "problem on standard error and exit code 2; finished work is kept.\n\n"
)


def parsers() -> Iterator[tuple[str, str, str, argparse.ArgumentParser]]:
    """Package, command, purpose and parser of every command."""
    for package in ("server", "client"):
        commands = importlib.import_module(f"{package}.commands").COMMANDS
        for name, purpose in commands.items():
            module = importlib.import_module(f"{package}.commands.{name}")
            parser = argparse.ArgumentParser(description=module.__doc__, epilog=module.EXAMPLE)
            module.arguments(parser)
            yield package, name, purpose, parser
    yield from _simulations()


def _simulations() -> Iterator[tuple[str, str, str, argparse.ArgumentParser]]:
    parser = importlib.import_module("simulations.__main__").make_parser()
    added = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    purposes = {action.dest: action.help or "" for action in added._choices_actions}
    for name, parser in added.choices.items():
        yield "simulations", name, purposes[name], parser


def commands_page() -> str:
    """The page."""
    text, package = generated("Commands", "the commands' parsers") + INTRODUCTION, ""
    for owner, name, purpose, parser in parsers():
        if owner != package:
            package = owner
            text += f"## python -m {package}\n\n"
        text += _section(package, name, purpose, parser)
    return text.rstrip("\n") + "\n"


def _section(package: str, name: str, purpose: str, parser: argparse.ArgumentParser) -> str:
    text = f"### {package} {name}\n\n{purpose[0].upper()}{purpose[1:].rstrip('.')}.\n\n"
    text += "".join(f"`{line.strip()}`\n\n" for line in (parser.epilog or "").splitlines())
    rows = [_row(action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    return text + (table(("argument", "default", "meaning"), rows) + "\n" if rows else "")


def _row(action: argparse.Action) -> tuple[str, str, str]:
    name = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{action.dest}`"
    if action.choices:
        name += " " + ", ".join(str(choice) for choice in action.choices)
    elif action.option_strings and action.nargs != 0:
        name += f" {action.metavar or action.dest.upper()}"
    return name, _default(action), _meaning(action)


def _default(action: argparse.Action) -> str:
    if action.required and action.option_strings:
        return "must be given"
    if action.default in (None, False, argparse.SUPPRESS) or action.default == []:
        return ""
    return f"`{action.default}`"


def _meaning(action: argparse.Action) -> str:
    return (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
