"""A message that takes too long or too much ends with a code, and the next one is answered."""

import multiprocessing
import time
from pathlib import Path

import psutil
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto

from client.node import executor
from client.node.executor import Apart
from client.node.watch import Limits, Overrun, available, awaited, confined, limits_of, resident, was_killed
from client.policy import Policy
from common.protocol.messages import Reply
from common.protocol.packing import pack, unpack
from common.protocol.wire import pack_reply, unpack_reply
from simulations.virtual.local_grid import LocalGrid

ID = "ab" * 32
MUCH = 300 << 20


def sleep(connection):
    time.sleep(60)


def grow(connection):
    held = bytearray(MUCH)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(60)


def answer(connection):
    connection.send_bytes(b"an answer")


def leave(connection):
    connection.close()


def started(work):
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return ours, process


@pytest.mark.parametrize(("work", "code"), [(sleep, "deadline"), (grow, "memory")])
def test_a_process_beyond_its_limits_is_ended(work, code):
    connection, process = started(work)
    roomy = 10 << 40 if code == "deadline" else resident(process.pid) + (100 << 20)
    began = time.monotonic()
    with pytest.raises(Overrun) as overrun:
        awaited(connection, process, Limits(0.3 if code == "deadline" else 30.0, roomy))
    assert overrun.value.code == code and "policy.maximum_" in str(overrun.value)
    assert not process.is_alive() and time.monotonic() - began < 15


def test_an_answer_within_the_limits_arrives_and_an_end_is_an_end():
    assert awaited(*started(answer), Limits(30.0, 10 << 40)) == b"an answer"
    with pytest.raises(EOFError):
        awaited(*started(leave), Limits(30.0, 10 << 40))


def group_tree(place: Path, *, controllers: str) -> tuple[Path, Path]:
    """A tree of control groups as plain files, and what a process reads of its own."""
    own = place / "unit" / "node"
    own.mkdir(parents=True)
    for folder in (own, own.parent):
        (folder / "cgroup.controllers").write_text("memory pids")
    (own.parent / "cgroup.subtree_control").write_text(controllers)
    (place / "self").write_text("0::/unit/node\n")
    return place, place / "self"


def test_where_a_control_group_can_be_made_the_kernel_holds_the_limit(tmp_path):
    made = confined(77, 1000, *group_tree(tmp_path, controllers="memory"))
    assert made == tmp_path / "unit" / "fedgraft-77"
    assert (made / "memory.max").read_text() == "1000" and (made / "cgroup.procs").read_text() == "77"
    (made / "memory.events").write_text("oom 1\noom_kill 0\n")
    assert not was_killed(made)
    (made / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert was_killed(made)


def test_without_one_the_watch_alone_holds_it(tmp_path):
    assert confined(77, 1000, *group_tree(tmp_path, controllers="cpu")) is None
    assert confined(77, 1000, tmp_path / "nothing", tmp_path / "nobody") is None


def test_no_limit_is_nine_tenths_of_what_there_is(tmp_path):
    total = psutil.virtual_memory().total
    assert available(*group_tree(tmp_path, controllers="")) == total
    (tmp_path / "unit" / "node" / "memory.max").write_text("1000")
    assert available(tmp_path, tmp_path / "self") == 1000
    (tmp_path / "unit" / "node" / "memory.max").write_text("max")
    assert available(tmp_path, tmp_path / "self") == total
    assert limits_of(Policy(maximum_memory_gb=2.5, maximum_seconds=9)) == Limits(9, 2_500_000_000)
    assert 0 < limits_of(Policy()).bytes <= 0.9 * total


def hang(connection, parent):
    connection.recv()
    time.sleep(60)


def reply(connection, parent):
    connection.recv()
    content = pack(pack_reply(Reply("CHUM", round=3, order=ID)))
    connection.send_bytes(message_to_proto(asked(content)).SerializeToString())


def asked(content=None):
    content = content or RecordDict({"config": ConfigRecord({"round": 3, "id": ID})})
    return Message(content, dst_node_id=7, message_type="train")


def test_a_node_answers_the_message_that_hung_and_the_next_one(tmp_path, monkeypatch, caplog):
    LocalGrid({}, workers=0).close()
    (tmp_path / "CHUM.yaml").write_text(f"code: CHUM\nroot: {tmp_path}\npolicy: {{maximum_seconds: 0.3}}\n")
    config = {"center": str(tmp_path / "CHUM.yaml"), "code": "CHUM"}
    context = Context(run_id=1, node_id=7, node_config=config, state=RecordDict(), run_config={})
    monkeypatch.setattr(executor, "_work", hang)
    hanging = Apart()
    declined = unpack_reply(unpack(hanging.answer(asked(), context).content))
    hanging.close()
    assert (declined.center, declined.code, declined.round, declined.order) == ("CHUM", "deadline", 3, ID)
    assert not declined.state and not declined.sums and "maximum_seconds (0.3 s)" in caplog.text
    monkeypatch.setattr(executor, "_work", reply)
    ready = Apart()
    assert unpack_reply(unpack(ready.answer(asked(), context).content)).code == "ok"
    ready.close()
