"""LocalGrid: Flower's Grid on one machine, without a network: real Messages, really serialised, to worker processes.

Every center has its own worker, so that what a worker caches stays with its centers; ``workers`` of them run at a
time. A worker that dies costs its center's reply and is started again.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import error_to_proto, message_from_proto, metadata_to_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.app import Verbs, answer_handed, app, client_app
from client.vault.group import Group
from client.vault.outbox import unrecorded
from common.protocol.handed import HandedOrder, HandedReply
from simulations.virtual.workers import Workers, start_worker

log = logging.getLogger("fedgraft.simulation")
RUN_ID = 1
SERVER_NODE = 1
FIRST_NODE = 100
ERROR_CLIENT = 3


class WorkerLost(Exception):
    """A worker ended over a message; in this process, where nothing may end, raised in its place."""


class LocalGrid(Grid):
    """Centers as worker processes of this machine, or in this very process with ``workers=0``.

    Attributes:
        is_complete: every node is there from the beginning, nobody need wait for more.
        makes_faults: whether a run's faults happen here.
        hands_over: orders and replies are handed over as they are, not as bytes.
    """

    is_complete = True
    makes_faults = False

    def __init__(
        self,
        centers: Mapping[str, Path],
        *,
        workers: int,
        sizes: Mapping[str, int] | None = None,
        verbs: Verbs | None = None,
        by_hand: bool = False,
        journal: Path | None = None,
        frozen: Sequence[str] = (),
    ):
        """Args:
        centers: code -> ``center.yaml``.
        workers: processes; 0 answers in this process (tests, debugging).
        sizes: cases by center, to spread the work; results do not depend on it.
        verbs: what centers do with an order in the place of their own verbs, in this process only.
        by_hand: without workers, orders and replies are handed over as they are.
        journal: where the lines of all centers' records are then flushed together; absent: each by itself.
        frozen: the frozen models that workers are to share, as JSON of their `BackboneSpec`.
        """
        if verbs is not None and workers:
            raise ValueError("Other verbs are answered in this process: give it workers=0.")
        self._app = app if verbs is None else client_app(verbs)
        self._verbs, self.hands_over = verbs or Verbs(), by_hand and not workers
        self._group = Group(journal) if journal is not None and self.hands_over else None
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
        self.centers = {FIRST_NODE + i: centers[code] for i, code in enumerate(sorted(centers))}
        self._codes = {FIRST_NODE + i: code for i, code in enumerate(sorted(centers))}
        self._pools: list[ProcessPoolExecutor | None] = [None] * min(workers, len(centers))
        self._worker_of = _spread(self._codes, len(self._pools), sizes or {})
        self._workers = Workers(frozen)
        self._waiting: dict[str, Message] = {}
        self._count = 0
        self._last: tuple[RecordDict, bytes] | None = None  # one order goes to every center: it is serialised once
        atexit.register(self.close)

    def set_run(self, run: Run) -> None:
        """Not needed: there is one run."""

    @property
    def run(self) -> Run:
        """The one run of this grid."""
        return Run.create_empty(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message as Flower makes it."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def enrolled(self) -> dict[str, int]:
        """Center -> node: in a simulation the grid itself knows who is where."""
        return {code: node for node, code in self._codes.items()}

    def get_node_ids(self) -> Iterable[int]:
        """One node per center."""
        return list(self.centers)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages now; the replies wait to be pulled."""
        keys = []
        for message, reply in self._work(list(messages), timeout=None):
            self._waiting[message.metadata.message_id] = reply
            keys.append(message.metadata.message_id)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to pushed messages."""
        return [self._waiting.pop(key) for key in message_ids if key in self._waiting]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Replies of the centers that answered within ``timeout`` seconds."""
        if self.hands_over:
            return self._by_hand(list(messages), timeout=timeout)
        return [reply for _, reply in self._work(list(messages), timeout=timeout)]

    def close(self) -> None:
        """Stop every worker."""
        for index in range(len(self._pools)):
            self._stop(index)
        if self._group is not None:
            self._group.close()
        self._workers.close()
        atexit.unregister(self.close)

    def _by_hand(self, messages: list[Message], *, timeout: float | None) -> list[Message]:
        """Replies as objects, once every center's record of them is on disk; late ones count nowhere else."""
        replies = []
        for message in messages:
            started = time.monotonic()
            order, path = message.content, self.centers[message.metadata.dst_node_id]
            if not isinstance(order, HandedOrder):
                raise TypeError("This grid is handed orders; bytes are for one that was not made by_hand.")
            before = order.versions()
            content = answer_handed(order, path, self._verbs, group=self._group)
            if order.versions() != before:
                raise RuntimeError(f"Center {path.stem} wrote into the order that every other center is handed, too.")
            if timeout is None or time.monotonic() - started <= timeout:
                replies.append((message, content))
        if self._group is not None:
            replies = _flushed(self._group, replies)
        return [Message(content, reply_to=message) for message, content in replies]

    def _work(self, messages: list[Message], *, timeout: float | None) -> list[tuple[Message, Message]]:
        for message in messages:
            self._count += 1
            message.metadata.__dict__["_message_id"] = f"local-{self._count}"
        if not self._pools:
            answered = [(message, self._answered_here(message, timeout)) for message in messages]
            return [(message, reply) for message, reply in answered if reply is not None]
        futures = {id(message): self._submit(message, timeout) for message in messages}
        free_at = dict.fromkeys(self._worker_of.values(), time.monotonic())  # when it turns to its next message
        answers: list[tuple[Message, Message]] = []
        for position, message in enumerate(messages):
            deadline = None if timeout is None else free_at[self._worker(message)] + timeout
            reply, worker_lost = self._collect(message, futures[id(message)], deadline)
            free_at[self._worker(message)] = getattr(futures[id(message)], "done_at", time.monotonic())
            if worker_lost:  # it died or overran on this message: the others that it had queued start again
                for other in messages[position + 1 :]:
                    if self._worker(other) == self._worker(message) and not _succeeded(futures[id(other)]):
                        futures[id(other)] = self._submit(other, timeout)
            if reply is not None:
                answers.append((message, reply))
        return answers

    def _answered_here(self, message: Message, timeout: float | None) -> Message | None:
        """The reply, unless it comes later than the timeout: in one process nobody can be interrupted."""
        started = time.monotonic()
        function, arguments = self._job(message, timeout)
        try:
            reply = _decoded(function(*arguments))
        except WorkerLost:
            return Message(Error(code=ERROR_CLIENT, reason="worker died"), reply_to=message)
        return None if timeout is not None and time.monotonic() - started > timeout else reply

    def _job(self, message: Message, timeout: float | None) -> tuple[Callable[..., bytes], tuple[Any, ...]]:
        """What a worker does for a message, and with what."""
        task = self._task(message)
        return (_answer, task) if self._app is app else (answered, (self._app, *task))

    def _worker(self, message: Message) -> int:
        return self._worker_of[message.metadata.dst_node_id]

    def _task(self, message: Message) -> tuple[bytes, str, int]:
        node = message.metadata.dst_node_id
        if self._last is None or self._last[0] is not message.content:
            self._last = (message.content, _content(message.content))
        return _envelope(message) + self._last[1], str(self.centers[node]), node

    def _submit(self, message: Message, timeout: float | None = None) -> Future[bytes]:
        function, arguments = self._job(message, timeout)
        try:
            future = self._pool(self._worker(message)).submit(function, *arguments)
        except BrokenProcessPool:
            self._stop(self._worker(message))
            future = self._pool(self._worker(message)).submit(function, *arguments)
        future.add_done_callback(_note_time)
        return future

    def _collect(self, message: Message, future: Future[bytes], deadline: float | None) -> tuple[Message | None, bool]:
        """The reply if there is one, and whether the worker was lost over it."""
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not wait([future], timeout=remaining).done:
            self._stop(self._worker(message))
            return None, True
        try:
            return _decoded(future.result()), False
        except (BrokenProcessPool, CancelledError):
            self._stop(self._worker(message))
            return Message(Error(code=ERROR_CLIENT, reason="worker died"), reply_to=message), True

    def _pool(self, index: int) -> ProcessPoolExecutor:
        pool = self._pools[index]
        if pool is None:
            pool = ProcessPoolExecutor(1, mp_context=self._workers.processes(), initializer=start_worker)
            self._pools[index] = pool
        return pool

    def _stop(self, index: int) -> None:
        pool = self._pools[index]
        self._pools[index] = None
        if pool is None:
            return
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


def _flushed(group: Group, replies: list[tuple[Message, HandedReply]]) -> list[tuple[Message, HandedReply]]:
    """The replies, once their lines are durable; where they cannot be, nothing leaves but a code that says so."""
    try:
        group.commit()
    except OSError as error:
        log.error("the journal of what leaves cannot be written (%s): nothing is answered", error)
        return [(message, HandedReply(unrecorded(content.reply))) for message, content in replies]
    return replies


def _spread(codes: Mapping[int, str], workers: int, sizes: Mapping[str, int]) -> dict[int, int]:
    """The largest center first, each to the worker with the least to do."""
    loads = [0] * max(workers, 1)
    place = {}
    for node in sorted(codes, key=lambda node: (-sizes.get(codes[node], 1), codes[node])):
        index = loads.index(min(loads))
        place[node] = index
        loads[index] += sizes.get(codes[node], 1)
    return place


def _succeeded(future: Future[bytes]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _note_time(future: Future[bytes]) -> None:
    future.done_at = time.monotonic()  # type: ignore[attr-defined]


def _answer(serialised: bytes, center: str, node: int) -> bytes:
    """Run the client app on one message, in whichever process this is."""
    return answered(app, serialised, center, node)


def answered(by: ClientApp, serialised: bytes, center: str, node: int) -> bytes:
    """An app's reply to one message, both as bytes."""
    identity = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 2, RUN_ID, node
    try:
        message = message_from_proto(ProtoMessage.FromString(serialised))
        context = Context(
            run_id=RUN_ID, node_id=node, node_config={"center": center}, state=RecordDict(), run_config={}
        )
        return _serialised(by(message, context))
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = identity


def _serialised(message: Message) -> bytes:
    """The bytes of `message_to_proto(message).SerializeToString()`, many times as fast.

    Flower nests constructors, and protobuf copies every array once a level; here they are filled in place. A message's
    bytes are its fields' bytes in a row, so that the content can be serialised apart from its envelope.
    """
    return _envelope(message) + (_content(message.content) if message.has_content() else b"")


def _envelope(message: Message) -> bytes:
    error = error_to_proto(message.error) if message.has_error() else None
    return bytes(ProtoMessage(metadata=metadata_to_proto(message.metadata), error=error).SerializeToString())


def _content(content: RecordDict) -> bytes:
    proto = ProtoMessage()
    proto.content.SetInParent()
    for name, record in content.items():
        if not isinstance(record, ArrayRecord):
            proto.content.items.extend(recorddict_to_proto(RecordDict({name: record})).items)
            continue
        item = proto.content.items.add(key=name)
        item.array_record.SetInParent()
        for key, array in record.items():
            value = item.array_record.items.add(key=key).value
            value.dtype, value.stype, value.data = array.dtype, array.stype, array.data
            value.shape.extend(array.shape)
    return bytes(proto.SerializeToString())


def _decoded(serialised: bytes) -> Message:
    return message_from_proto(ProtoMessage.FromString(serialised))
