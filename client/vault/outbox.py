"""What left this hospital: one line for every reply, in a hash-chained record in the vault, written before it leaves.

The record holds names, sizes and digests, never values: what a reply carried, for which step and round, and how many
bytes. `python -m client audit` reads it. A reply that cannot be recorded does not leave (`client.app` sends a code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.vault.group import Group
from client.vault.lock import alone
from common.errors import FedgraftError
from common.protocol.messages import OK, Order, Reply
from common.store.ledger import append_line

FILE = "sent.jsonl"
REPLY = "reply"


class NotRecorded(FedgraftError):
    """The record cannot be written or is damaged: nothing but this code may leave."""

    code = "unrecorded"


def unrecorded(reply: Reply) -> Reply:
    """What leaves in the place of a reply that cannot be recorded."""
    return Reply(reply.center, code=NotRecorded.code, round=reply.round, order=reply.order)


def record_reply(
    vault: Path, facts: Mapping[str, Any], *, action: str, order: Order, group: Group | None = None
) -> None:
    """Append one reply to the record of what left; ``facts`` as from `handed.reply_facts`. Raises NotRecorded.

    Args:
        group: flushes the lines of several centers at once, before any of their replies is looked at; absent: the line
            is on disk when this returns.
    """
    asked = {
        "action": action,
        "step": order.step.name,
        "task": order.step.task.kind,
        "round": order.round,
        "subset": order.subset,
        "base": order.base,
    }
    _record(vault, {**asked, **facts}, group)


def record_file(vault: Path, *, action: str, size: int, digest: str, sums: Sequence[str], cases: int) -> None:
    """The same of a file that a person sends: names of what it tells, its size and SHA-256. Raises NotRecorded."""
    nowhere = {"step": "", "task": "", "round": 0, "subset": "", "base": ""}
    facts = {"code": OK, "counts": {"cases": cases}, "parts": [], "arrays": 0, "array_bytes": 0, "sums": list(sums)}
    _record(vault, {"action": action, **nowhere, **facts, "bytes": size, "digest": digest})


def _record(vault: Path, event: dict[str, Any], group: Group | None = None) -> None:
    try:
        with alone(vault / FILE):
            if group is None:
                append_line(vault / FILE, REPLY, event)
            else:
                group.append(vault / FILE, REPLY, event)
    except (OSError, FedgraftError) as error:
        raise NotRecorded(
            f"The record of what leaves this site, {vault / FILE}, cannot be continued ({error}); nothing was sent. "
            "Free space, or move the damaged record aside and tell whoever audits it."
        ) from error
