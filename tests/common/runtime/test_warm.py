"""Forks of a warm parent find what it loaded; a parent that cannot be forked safely says so."""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from common.runtime.warm import WarmContext, start_warm, threads

FORK = multiprocessing.get_context("fork")
HELD: list[int] = []


def load(*values):
    HELD.extend(values)


def load_and_pool(value):
    HELD.append(value)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def fail(value):
    raise ValueError(f"no {value} here")


def tell(connection):
    connection.send((list(HELD), os.getppid(), threads()))
    HELD.append(99)


def leave(code):
    os._exit(code)


@pytest.fixture
def started():
    made = []

    def start(how, *values, processes=FORK):
        made.append(start_warm(processes, how, *values))
        return made[-1]

    yield start
    for parent in reversed(made):
        parent.end()


def asked(parent):
    ours, theirs = FORK.Pipe()
    process = WarmContext(parent.place).Process(target=tell, args=(theirs,))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    assert process.exitcode == 0
    return found


def test_each_fork_finds_what_was_loaded_and_leaves_it_as_it_was(started):
    parent = started(load, 1, 2)
    assert parent.problem(wait_s=20) == "" and parent.is_alive
    for _ in range(2):
        assert asked(parent) == ([1, 2], parent.process.pid, 1)
    assert HELD == []


def test_a_parent_forked_from_a_parent_has_both(started):
    first = started(load, 1)
    assert first.problem(wait_s=20) == ""
    second = started(load, 2, processes=WarmContext(first.place))
    assert second.problem(wait_s=20) == ""
    assert asked(second)[0] == [1, 2] and asked(first)[0] == [1]


def test_how_a_fork_ended_is_told_to_who_started_it(started):
    parent = started(load)
    assert parent.problem(wait_s=20) == ""
    ends = []
    for target, argument in ((leave, 3), (time.sleep, 60)):
        process = WarmContext(parent.place).Process(target=target, args=(argument,))
        process.start()
        if target is time.sleep:
            process.kill()
        process.join()
        ends.append(process.exitcode)
    assert ends == [3, -signal.SIGKILL]


def test_a_parent_with_a_pool_of_threads_serves_nobody(started):
    assert "2 threads" in str(started(load_and_pool, 1).problem(wait_s=20))


def test_a_parent_that_could_not_load_says_why(started):
    assert started(fail, "weights").problem(wait_s=20) == "It could not load (ValueError: no weights here)."


def test_a_parent_that_is_gone_starts_nothing():
    parent = start_warm(FORK, load, 1)
    assert parent.problem(wait_s=20) == ""
    parent.end()
    with pytest.raises((OSError, EOFError)):
        WarmContext(parent.place).Process(target=time.sleep, args=(1,)).start()
