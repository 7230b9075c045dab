"""python -m client: a hospital's own commands. Everything runs on site; nothing here opens a port to the outside."""

from __future__ import annotations

from client.commands import COMMANDS
from common.runtime.cli import run_tool


def main(argv: list[str] | None = None) -> int:
    """One command of `client.commands`; its exit code."""
    return run_tool("client", COMMANDS, argv, description=__doc__, first="init", detail="doctor")


if __name__ == "__main__":
    raise SystemExit(main())
