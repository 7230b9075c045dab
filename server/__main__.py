"""python -m server: the coordinator's commands, from a planned run to its exported adapters."""

from __future__ import annotations

from common.runtime.cli import run_tool
from server.commands import COMMANDS


def main(argv: list[str] | None = None) -> int:
    """One command of `server.commands`; its exit code."""
    return run_tool("server", COMMANDS, argv, description=__doc__, first="plan curriculum=quickstart", detail="start")


if __name__ == "__main__":
    raise SystemExit(main())
