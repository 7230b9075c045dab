"""What every command line shares: errors end as sentences with exit code 2, and Hydra overrides as plain words."""

from __future__ import annotations

import sys
from collections.abc import Callable

from common.errors import FedgraftError


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
