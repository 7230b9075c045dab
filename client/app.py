"""The client's Flower app: it translates messages to orders and replies to messages, and nothing else.

Every exception ends here: Flower would send its text to the server, so only a code leaves and the sentence stays in
the center's own log.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.policy.asked import check_asked, check_step, echoed
from client.vault.group import Group
from client.vault.outbox import NotRecorded, record_reply, unrecorded
from common.config.run import PARTS
from common.errors import FedgraftError, WireError
from common.privacy.scores import scored_task
from common.protocol.handed import HandedOrder, HandedReply, reply_facts
from common.protocol.messages import Order, Reply, State
from common.protocol.wire import COUNTS_OF, check_declared, declared_scores, pack_reply, unpack_order
from common.runtime.cli import FULL, os_sentence

if TYPE_CHECKING:
    from client.center.center import Center

log = logging.getLogger("fedgraft.center")

Travels = TypeVar("Travels", bound=RecordDict)  # a reply as bytes, or as it is
Verb = Callable[..., Reply]  # (center, order) to what the center answers


@dataclass(frozen=True)
class Verbs:
    """What a center does with each kind of order. The bench of a round's overhead has centers that only answer."""

    describe: Verb = lambda center, order: center.describe(order)
    stage: Verb = lambda center, order: _take_stage(center, order)
    train: Verb = lambda center, order: center.train(order)
    sums: Verb = lambda center, order: center.sums(order)
    evaluate: Verb = lambda center, order: center.evaluate(order)
    masking: Verb = lambda center, order: _take_part_in_sum(center, order)
    declared: Callable[..., tuple[State, State]] = lambda center, order: center.declared(order)


def _take_stage(center: Center, order: Order) -> Reply:
    from client.center.stages import take_stage  # with torch, as the center itself

    return take_stage(center, order)


def _take_part_in_sum(center: Center, order: Order) -> Reply:
    from client.masking.replies import answer, check_scorable
    from client.policy import check_order

    check_order(center.config.policy, order)
    check_scorable(order, cases=lambda: len(center.part(order, _part_of(order))), minimum=center.minimum(order).cell)
    return answer(center.config, center.vault, order)


def _part_of(order: Order) -> str:
    """The part of the split that an order asks about; thresholds of an exact fit are over the training patients."""
    return order.subset if order.subset in PARTS else "train"


def client_app(verbs: Verbs) -> ClientApp:
    """The app of centers that do this."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Train one round."""
        return _answer(message, context, verbs.train, verbs.declared, action="train")

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Score a state on one split."""
        return _answer(message, context, verbs.evaluate, verbs.declared, action="evaluate")

    @app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        """Counts of usable cases for a step."""
        return _answer(message, context, verbs.describe, verbs.declared, action="describe")

    @app.query("stage")
    def stage(message: Message, context: Context) -> Message:
        """Keep a finished step, merged into the frozen model."""
        return _answer(message, context, verbs.stage, verbs.declared, action="stage")

    @app.query("masking")
    def masking(message: Message, context: Context) -> Message:
        """Take part in a phase of a secure sum in which no patient is looked at."""
        return _answer(message, context, verbs.masking, verbs.declared, action="masking")

    @app.query("sums")
    def sums(message: Message, context: Context) -> Message:
        """Answer with sums over the training cases: for a survival grid, or for one question of Newton's method."""
        return _answer(message, context, verbs.sums, verbs.declared, action="sums")

    return app


app = client_app(Verbs())


def _answer(
    message: Message,
    context: Context,
    work: Verb,
    declared: Callable[..., tuple[State, State]],
    *,
    action: str,
) -> Message:
    asked = _Asked(
        lambda: _center_file(context),
        lambda center: unpack_order(message.content, lambda order: _arriving(center, order)),
        check_asked,
        message.metadata.message_type,
    )
    return Message(_answered(asked, work, declared, action=action, travels=pack_reply), reply_to=message)


def answer_handed(content: HandedOrder, path: Path, verbs: Verbs, *, group: Group | None = None) -> HandedReply:
    """A center's reply to an order that is handed over in this process: the same checks, verbs, codes and record.

    Args:
        path: its ``center.yaml``.
        group: makes the lines of several centers' records durable by one flush; absent: each by its own.
    """
    asked = _Asked(
        lambda: path,
        lambda center: content.read(lambda order: _arriving(center, order)),
        lambda order: content.check(check_asked),
        content.action,
        group,
    )
    action = content.action.removeprefix("query.")
    return _answered(asked, getattr(verbs, action), verbs.declared, action=action, travels=HandedReply)


@dataclass(frozen=True)
class _Asked:
    """A question on its way into a center.

    Args:
        path: of the center's own file.
        read: the order, as this center reads it.
        check: raises for an order that no hospital answers.
        kind: the message's type, for the record of what left.
    """

    path: Callable[[], Path]
    read: Callable[[Center], Order]
    check: Callable[[Order], None]
    kind: str
    group: Group | None = None


def _answered(
    asked: _Asked,
    work: Verb,
    declared: Callable[..., tuple[State, State]],
    *,
    action: str,
    travels: Callable[[Reply], Travels],
) -> Travels:
    """What leaves: the work's reply if it holds what was declared and stands in the record, else a code."""
    code, number, identity = "unknown", 0, ""
    order: Order | None = None
    vault: Path | None = None
    try:
        path = asked.path()
        code = path.stem
        from client.center.config import read_config

        config = read_config(path)  # with its plugins, whose kinds the order may name
        from client.center.center import Center

        center = Center(config)
        order = asked.read(center)
        number, identity = echoed(order)
        asked.check(order)
        code, vault = center.code, center.vault
        reply = replace(work(center, order), round=order.round, order=order.id)
        like = declared(center, order) if reply.state or reply.extra else ({}, {})
        _check_declared(reply, order, *like, action=action)
        content = travels(reply)
    except FedgraftError as error:
        log.error("center=%s code=%s %s", code, error.code, error)
        reply = Reply(code, code=error.code, round=number, order=identity)
        content = travels(reply)
    except OSError as error:
        said = "disk" if error.errno in (*FULL, errno.EROFS) else "internal"
        log.exception("center=%s code=%s %s", code, said, os_sentence(error), exc_info=said == "internal")
        reply = Reply(code, code=said, round=number, order=identity)
        content = travels(reply)
    except Exception:
        log.exception("center=%s code=internal", code)
        reply = Reply(code, code="internal", round=number, order=identity)
        content = travels(reply)
    if order is None or vault is None:
        return content  # no order was understood or no center opened: this is a code and nothing else
    try:
        record_reply(vault, reply_facts(reply), action=asked.kind, order=order, group=asked.group)
    except NotRecorded as error:
        log.error("center=%s code=%s %s", code, error.code, error)
        return travels(unrecorded(reply))
    return content


def _arriving(center: Center, order: Order) -> tuple[State, State]:
    """What an order may bring, once its step is one from which a model may be built at all."""
    check_step(order)
    return center.arriving(order)


def _check_declared(reply: Reply, order: Order, state_like: State, extra_like: State, *, action: str) -> None:
    """Raises WireError for a reply that holds what the step and the action do not declare."""
    task = scored_task(order.step)
    sums = task.label_shapes if action == "describe" else declared_scores(order, task)
    if action == "sums":
        from common.exact.step import declared_in_order

        sums = declared_in_order(order)
    if order.masking is not None:
        sums = {}
    counts = COUNTS_OF[action]
    check_declared(reply, state_like=state_like, sum_shapes=sums, extra_like=extra_like, counts=counts)


def _center_file(context: Context) -> Path:
    """``center`` from the node's configuration; in simulation, the partition's file under FEDGRAFT_CENTERS."""
    if "center" in context.node_config:
        return Path(str(context.node_config["center"]))
    folder = os.environ.get("FEDGRAFT_CENTERS")
    if folder is None or "partition-id" not in context.node_config:
        raise WireError(
            "This node has no center: start it with --node-config 'center=\"/path/to/center.yaml\"', or set "
            "FEDGRAFT_CENTERS to a folder of center files in a simulation."
        )
    files = sorted(Path(folder).glob("*.yaml"))
    return files[int(context.node_config["partition-id"]) % len(files)]
