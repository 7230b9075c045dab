"""Replies of a phase, sorted by center: a copy counts once, two different ones not at all, a stranger's never."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message, RecordDict

from common.protocol.arrays import Form
from common.protocol.handed import HandedReply, reply_digest
from common.protocol.messages import Reply
from server.centers.federation import UNREACHED, WRONG_CENTER, read_reply
from server.centers.screening import Rejection
from server.learning.outcome import Outcome

Check = Callable[[Reply], Rejection | None]


def screened(
    replies: Iterable[Message],
    check: Check,
    *,
    nodes: Mapping[str, int],
    resting: Mapping[str, str],
    asked: Mapping[str, str],
    form: Callable[[str], Form],
) -> Outcome:
    """Replies that pass a check, whatever order they came in, and why the others do not.

    Args:
        nodes: center -> node, of every center of the step.
        resting: center -> why it was not asked.
        asked: center -> id of the order that it was sent; of the others no reply counts.
        form: what a center's answer may carry.
    """
    outcome = Outcome(rejected={center: resting.get(center, UNREACHED) for center in nodes})
    for center, contents in sorted(_heard(replies, nodes, asked).items()):
        if len(contents) > 1:
            outcome.duplicates.append(center)
        if any(not same_content(contents[0], other) for other in contents[1:]):
            outcome.reject(center, Rejection("conflicting", f"{len(contents)} replies that differ"))
            continue
        reply = read_reply(contents[0], asked=asked[center], form=form(center))
        reason = check(reply)
        if reason is None and reply.center != center:
            reason = Rejection(WRONG_CENTER, f"its node belongs to {center}")
        if reason is None:
            outcome.accepted[center] = reply
            outcome.rejected.pop(center, None)
        else:
            outcome.reject(center, reason)
    return outcome


def _heard(
    replies: Iterable[Message], nodes: Mapping[str, int], asked: Mapping[str, str]
) -> dict[str, list[RecordDict]]:
    names = {node: center for center, node in nodes.items()}
    heard: dict[str, list[RecordDict]] = {}
    for message in replies:
        center = names.get(message.metadata.src_node_id)
        if center is not None and center in asked and not message.has_error():
            heard.setdefault(center, []).append(message.content)
    return heard


def same_content(a: RecordDict, b: RecordDict) -> bool:
    """Whether two messages say the same, bit for bit."""
    return _plain(a) == _plain(b)


def _plain(content: RecordDict) -> dict[str, object]:
    if isinstance(content, HandedReply):
        return {"digest": reply_digest(content.reply)}
    arrays = {n: {k: (a.dtype, a.shape, a.data) for k, a in r.items()} for n, r in content.array_records.items()}
    return {**arrays, **{n: dict(record) for n, record in content.config_records.items()}}
