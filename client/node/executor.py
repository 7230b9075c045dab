"""A node's executor: the hospital's own reviewed checkout answers each message, never the code that arrived with it.

A bundle whose digest is not this checkout's is refused before anything of it is unpacked: the message is answered with
a code, the sentence goes to this node's log. A bundle of the same digest is not unpacked either: the same code is here.

Two processes for a message: one speaks to the SuperNode, the other opens patient files. When the second one dies (out
of memory, killed), the first one tries again, and then answers for it; Flower alone would wait over a minute. When it
takes more time or memory than the policy allows, the first one ends it and answers with a code, at once.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Context as ProtoContext
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.constant import TaskType
from flwr.supercore.task_identity import TaskIdentity

from client.node.watch import Overrun, awaited, limits_of
from client.policy import Policy
from common.errors import FedgraftError, WireError
from common.protocol.packing import pack, unpack
from common.runtime.executor import TaskAccess, end_with, forks, log_to_own_file, run_in_flower, serve
from common.runtime.release import bundle_digest, bundle_handshake, own_handshake

PROGRAM = "flwr.supernode.runtime.run_clientapp"
PRELOAD = ["client.node.executor", PROGRAM, "client.app", "client.center.center", "peft"]  # once, not per message
ATTEMPTS = 2
ID = re.compile(r"[0-9a-f]{64}")
FOREIGN_CODE, OTHER_RELEASE, PROCESS_DIED = "declined.code", "declined.release", "process_died"

log = logging.getLogger("fedgraft.node")


def answer_task(access: TaskAccess) -> None:
    """One message, from the SuperNode and back to it; runs in a process of its own."""
    log_to_own_file()
    apart, refused = Apart(), list[str]()

    def inspect(bundle: bytes) -> None:
        if found := foreign(bundle, release=access.release):
            log.error("code=%s %s", *found)
            refused.append(found[0])

    def load(fab_id: str, fab_version: str, fab_hash: str) -> Callable[[Message, Context], Message]:
        """In the place where Flower would import it."""
        return refusing(refused[0]) if refused else apart.answer

    try:
        run_in_flower(PROGRAM, access, inspect=inspect, replaced={"get_load_client_app_fn": lambda **_: load})
    finally:
        apart.close()


def foreign(bundle: bytes, *, release: str) -> tuple[str, str] | None:
    """Code and sentence why a bundle is not the code of this checkout; None when it is.

    The digest alone decides; what a bundle says of its release is only told.
    """
    try:
        digest = bundle_digest(bundle)
    except WireError as error:
        return FOREIGN_CODE, f"The server's bundle was refused: {error}"
    if digest == release:
        return None
    ours = own_handshake()
    try:
        theirs = bundle_handshake(bundle)
    except WireError:
        theirs = ours
    if theirs != ours:
        return OTHER_RELEASE, (
            f"The server runs release {theirs}, this hospital's reviewed checkout is {ours}: nothing of its code was "
            "unpacked or run. Install and review the server's release here, or ask the coordinator to run this one."
        )
    return FOREIGN_CODE, (
        f"The server's bundle has digest {digest[:12]}, this hospital's reviewed checkout {release[:12]}: nothing of "
        f"it was unpacked or run. Both call themselves {ours}, so one of them was changed; `python -m client start` "
        "and `python -m server start` print theirs."
    )


def refusing(code: str) -> Callable[[Message, Context], Message]:
    """An app that declines every message, with the round and id that it was asked with."""
    from common.protocol.messages import Reply  # with torch, which the process that only fetches messages does without
    from common.protocol.wire import pack_reply

    def refuse(message: Message, context: Context) -> Message:
        number, asked = _asked(message)
        return Message(
            pack(pack_reply(Reply(center_of(context), code=code, round=number, order=asked))), reply_to=message
        )

    return refuse


def _asked(message: Message) -> tuple[int, str]:
    """Round and id of a message's order, as far as they are what they should be."""
    config: Mapping[str, object] = dict(message.content.config_records.get("config") or {})
    number, asked = config.get("round"), str(config.get("id", ""))
    whole = isinstance(number, int) and not isinstance(number, bool) and number >= 0
    return (number if whole else 0), (asked if ID.fullmatch(asked) else "")  # type: ignore[return-value]


class Apart:
    """Processes that wait to answer one message each, away from the one that speaks to the SuperNode.

    They are made at once, while this process still has one thread: it could not fork safely later.
    """

    def __init__(self, attempts: int = ATTEMPTS):
        self._waiting = [self._start() for _ in range(attempts)]

    def answer(self, message: Message, context: Context) -> Message:
        """The message's answer; a process that dies over it costs an attempt, and in the end this message only.

        One that outgrows the policy is ended and not tried again.
        """
        limits = limits_of(_policy(context))
        sent = message_to_proto(message).SerializeToString(), context_to_proto(context).SerializeToString()
        identity = (TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id)
        while self._waiting:
            connection, process = self._waiting.pop(0)
            try:
                connection.send((*sent, identity))
                return message_from_proto(ProtoMessage.FromString(awaited(connection, process, limits)))
            except Overrun as overrun:
                log.error("center=%s code=%s %s Its process was ended.", center_of(context), overrun.code, overrun)
                return refusing(overrun.code)(message, context)
            except (EOFError, OSError):
                process.join()
                log.error("code=%s exitcode=%s attempts_left=%s", PROCESS_DIED, process.exitcode, len(self._waiting))
        return refusing(PROCESS_DIED)(message, context)

    def close(self) -> None:
        """End those that were not needed."""
        for _, process in self._waiting:
            process.kill()

    def _start(self) -> tuple[Connection, BaseProcess]:
        ours, theirs = forks().Pipe()
        process = forks().Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()
        return ours, process


def center_of(context: Context) -> str:
    """The center's code, as the node was started with it."""
    return str(context.node_config.get("code", "unknown"))


def _policy(context: Context) -> Policy:
    """The hospital's, or the defaults where its file cannot be read: then the answer is a code anyway."""
    from client.center.config import read_config

    try:
        return read_config(str(context.node_config["center"])).policy
    except (FedgraftError, KeyError):
        return Policy()


def _work(connection: Connection, parent: int) -> None:
    end_with(parent)
    log_to_own_file()
    message, context, identity = connection.recv()
    from client.app import app

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = identity
    connection.send_bytes(message_to_proto(_answer(app, message, context)).SerializeToString())
    connection.close()


def _answer(app: ClientApp, message: bytes, context: bytes) -> Message:
    received = message_from_proto(ProtoMessage.FromString(message))
    with suppress(WireError):  # an order that is not packed is none that the app understands, and it says so
        received.content = unpack(received.content)
    reply = app(received, context_from_proto(ProtoContext.FromString(context)))
    return Message(pack(reply.content), reply_to=received)


def main() -> None:
    """Serve the SuperNode until stopped."""
    serve(TaskType.CLIENT_APP, answer_task, preload=PRELOAD)
