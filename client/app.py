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
from typing import TYPE_CHECKING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.policy.asked import check_asked, check_step, echoed
from client.vault.outbox import NotRecorded, record_reply
from common.errors import FedgraftError, WireError
from common.protocol.messages import Order, Reply, State
from common.protocol.wire import COUNTS_OF, check_declared, content_facts, declared_scores, pack_reply, unpack_order
from common.runtime.cli import FULL, os_sentence
from common.tasks import build_task

if TYPE_CHECKING:
    from client.center.center import Center

log = logging.getLogger("fedgraft.center")

Verb = Callable[..., Reply]  # (center, order) to what the center answers


@dataclass(frozen=True)
class Verbs:
    """What a center does with each kind of order. The bench of a round's overhead has centers that only answer."""

    describe: Verb = lambda center, order: center.describe(order)
    stage: Verb = lambda center, order: _take_stage(center, order)
    train: Verb = lambda center, order: center.train(order)
    sums: Verb = lambda center, order: center.sums(order)
    evaluate: Verb = lambda center, order: center.evaluate(order)
    declared: Callable[..., tuple[State, State]] = lambda center, order: center.declared(order)


def _take_stage(center: Center, order: Order) -> Reply:
    from client.center.stages import take_stage  # with torch, as the center itself

    return take_stage(center, order)


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
    code, number, asked = "unknown", 0, ""
    order: Order | None = None
    vault: Path | None = None
    try:
        path = _center_file(context)
        code = path.stem
        from client.center.center import Center
        from client.center.config import read_config

        read_config(path)  # with its plugins, whose kinds the order may name
        center = Center.open(path)
        order = unpack_order(message.content, lambda order: _arriving(center, order))
        number, asked = echoed(order)
        check_asked(order)
        code, vault = center.code, center.vault
        reply = replace(work(center, order), round=order.round, order=order.id)
        like = declared(center, order) if reply.state or reply.extra else ({}, {})
        content = _declared(reply, order, *like, action=action)
    except FedgraftError as error:
        log.error("center=%s code=%s %s", code, error.code, error)
        content = pack_reply(Reply(code, code=error.code, round=number, order=asked))
    except OSError as error:
        said = "disk" if error.errno in (*FULL, errno.EROFS) else "internal"
        log.exception("center=%s code=%s %s", code, said, os_sentence(error), exc_info=said == "internal")
        content = pack_reply(Reply(code, code=said, round=number, order=asked))
    except Exception:
        log.exception("center=%s code=internal", code)
        content = pack_reply(Reply(code, code="internal", round=number, order=asked))
    return Message(_recorded(content, message, order, vault, code), reply_to=message)


def _arriving(center: Center, order: Order) -> tuple[State, State]:
    """What an order may bring, once its step is one from which a model may be built at all."""
    check_step(order)
    return center.arriving(order)


def _recorded(content: RecordDict, message: Message, order: Order | None, vault: Path | None, code: str) -> RecordDict:
    """The content, once the vault's record names it; where it cannot be recorded, a code in its place."""
    if order is None or vault is None:
        return content  # no order was understood or no center opened: this is a code and nothing else
    try:
        record_reply(vault, content_facts(content), action=message.metadata.message_type, order=order)
    except NotRecorded as error:
        log.error("center=%s code=%s %s", code, error.code, error)
        return pack_reply(Reply(code, code=error.code, round=order.round, order=order.id))
    return content


def _declared(reply: Reply, order: Order, state_like: State, extra_like: State, *, action: str) -> RecordDict:
    """The reply as Flower content, if it holds nothing that the step and the action do not declare."""
    task = build_task(order.step.task)
    sums = task.label_shapes if action == "describe" else declared_scores(order, task)
    if action == "sums":
        from common.exact.step import declared_in_order

        sums = declared_in_order(order)
    counts = COUNTS_OF[action]
    check_declared(reply, state_like=state_like, sum_shapes=sums, extra_like=extra_like, counts=counts)
    return pack_reply(reply)


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
