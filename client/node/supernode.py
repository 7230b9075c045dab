"""Flower's SuperNode, started so that it leaves a mark whenever the coordinator has answered it, and looks more often.

Flower keeps trying in silence while the coordinator cannot be reached. A hospital wants to know: the mark's age is how
long ago an answer came (a heartbeat's, every half minute, if nothing else), and `python -m client health` reads it.

Flower sleeps 3 s whenever no message is there, and half a second while one is answered. Here these waits are a tenth of
the time since the last message came or its answer left, and never longer than Flower's own: a node whose run is under
way looks often, an idle one as seldom as Flower's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from common.runtime.waits import FIRST_BACKOFF_S, Waits

MARK = "FEDGRAFT_REACHED"


def leave_marks(client: Any, mark: Path) -> None:
    """Make a Fleet API client touch ``mark`` after every answer; a full or read-only disk stops nothing."""
    ask = client._unary_unary

    def asked(*arguments: Any, **options: Any) -> Any:
        answer = ask(*arguments, **options)
        with suppress(OSError):
            mark.touch()
        return answer

    client._unary_unary = asked


def look_often(loop: Any) -> None:
    """Make the module with Flower's loop wait as `Waits` says: its sleeps, and before it asks for a part again."""
    loop.time = waits = Waits()
    for name in ("_pull_and_store_message", "_push_messages"):
        setattr(loop, name, _beginning(getattr(loop, name), waits))
    loop.pull_objects = partial(loop.pull_objects, initial_backoff=FIRST_BACKOFF_S)


def _beginning(step: Callable[..., Any], waits: Waits) -> Callable[..., Any]:
    """A step of the loop, after which the waits begin anew unless it found nothing to do."""

    def done(*arguments: Any, **options: Any) -> Any:
        found = step(*arguments, **options)
        if found is not None or "send" in options:  # a message's run, or the answer that was sent
            waits.begin()
        return found

    return done


def main() -> None:
    """Run Flower's own command, with its own command line."""
    import flwr.supernode.start_client_internal as loop
    from flwr.supernode.cli import flower_supernode
    from flwr.supernode.fleet_http_client import FleetHttpClient

    leave_marks(FleetHttpClient, Path(os.environ[MARK]))
    look_often(loop)
    flower_supernode()
