"""LocalGrid: real messages to workers of this machine, which it stops again whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.backbones import backbone_digest, load_backbone
from common.config.load import to_json
from common.protocol.messages import Order
from common.protocol.wire import unpack_reply
from server.centers.federation import Federation
from simulations.virtual.local_grid import FIRST_NODE, LocalGrid, _spread
from tests.helpers.small import all_below, gone, small_run

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def describing():
    run = small_run(steps=["tumour_ct"])
    base = backbone_digest(load_backbone(run.backbone))
    return Order(run.steps["tumour_ct"], 1, 0, run.backbone, base, run.data.split)


def test_nodes_stand_in_the_order_of_their_codes(small_centers):
    grid = LocalGrid(dict(reversed(small_centers.items())), workers=0)
    assert list(grid.get_node_ids()) == [FIRST_NODE + i for i in range(4)]
    assert [path.stem for path in grid.centers.values()] == sorted(small_centers)
    grid.close()


def test_the_largest_centers_go_to_different_workers():
    codes = {1: "A", 2: "B", 3: "C", 4: "D"}
    place = _spread(codes, 2, {"A": 10, "B": 9, "C": 2, "D": 1})
    assert place[1] != place[2] and place[3] == place[2] and place[4] in (0, 1)
    assert set(_spread(codes, 1, {}).values()) == {0}


def test_pushed_messages_are_pulled_once(small_centers, describing):
    from flwr.app import Message

    from common.protocol.wire import pack_order

    grid = LocalGrid(small_centers, workers=0)
    messages = [Message(pack_order(describing), n, "query.describe") for n in grid.get_node_ids()]
    keys = list(grid.push_messages(messages))
    assert len(set(keys)) == 4
    replies = [unpack_reply(reply.content) for reply in grid.pull_messages(keys)]
    assert [reply.center for reply in replies] == sorted(small_centers) and all(r.is_usable for r in replies)
    assert list(grid.pull_messages(keys)) == []
    grid.close()


@pytest.mark.slow
def test_workers_answer_as_this_process_does_and_are_gone_after_close(small_centers, describing):
    def ask(workers):
        grid = LocalGrid(small_centers, workers=workers, frozen=[to_json(describing.backbone)])
        found = Federation(grid).discover(describing, at_least=4)
        started = workers_of(grid)
        parent = grid._workers._parent
        grid.close()
        return {center: reply.counts for center, reply in found.usable.items()}, found.bytes, started, parent

    here, here_bytes, none, no_parent = ask(0)
    there, _, started, parent = ask(2)
    assert here == there and len(here) == 4 and all(way["up"] > 0 for way in here_bytes.values())
    assert not none and no_parent is None
    assert len(started) == 2 and gone([*started, parent.process.pid])


@pytest.mark.slow
def test_workers_share_the_frozen_model_and_a_dead_parent_is_replaced(small_centers, describing):
    grid = LocalGrid(small_centers, workers=1, frozen=[to_json(describing.backbone)])
    try:
        assert grid._pool(0).submit(frozen_here).result() == ([to_json(describing.backbone)], 2)
        assert len(Federation(grid).discover(describing, at_least=4).usable) == 4
        assert grid._pool(0).submit(frozen_here).result()[0] == [to_json(describing.backbone)]
        parent = grid._workers._parent
        parent.process.kill()
        parent.process.join()
        [worker] = workers_of(grid)
        os.kill(worker, signal.SIGKILL)
        assert gone([worker])
        grid._stop(0)
        assert len(Federation(grid).discover(describing, at_least=4).usable) == 4
        assert grid._workers._parent is not parent
    finally:
        grid.close()


@pytest.mark.slow
def test_a_frozen_model_that_cannot_be_loaded_is_each_centers_to_say(small_centers):
    grid = LocalGrid(small_centers, workers=1, frozen=[json.dumps({"kind": "unetr", "weights": "/none"})])
    assert grid._pool(0).submit(frozen_here).result() == ([], 2)
    grid.close()


def frozen_here():
    """In a worker: the frozen models that it has, and its threads (it watches its starter, and works)."""
    from client.center.resident import FROZEN
    from common.runtime.warm import threads

    return [key[0] for key in FROZEN], threads()


def workers_of(grid):
    return [pid for pool in grid._pools if pool is not None for pid in (pool._processes or {})]


SERVER = """
import pathlib, signal, sys, time
from simulations.virtual.local_grid import LocalGrid

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    grid = LocalGrid({"A": pathlib.Path("none.yaml"), "B": pathlib.Path("none.yaml")}, workers=2)
    for index in range(2):
        grid._pool(index).submit(time.sleep, 600)
    print("ready", flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        grid.close()
        sys.exit(130)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_stopped_server_leaves_no_worker_behind(tmp_path, number):
    script = tmp_path / "server_script.py"
    script.write_text(SERVER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 60
    while len(all_below(server.pid)) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = all_below(server.pid)
    assert len(children) == 5, "the imports' process, the warm parent, two workers and the resource tracker"
    if number == signal.SIGINT:
        os.killpg(server.pid, number)  # Ctrl-C reaches the whole group
    else:
        os.kill(server.pid, number)
    assert server.wait(30) == (130 if number == signal.SIGINT else -number)
    server.stdout.close()
    assert gone(children, within_s=60)
