"""An executor whose code is not that of the files any more takes no task, and ends for a fresh one."""

import pytest
from flwr.supercore.constant import TaskType

from common.runtime import executor as module
from common.runtime.executor import OwnCode, _current, _has_ended
from common.runtime.release import CHANGED, forget_digest, own_digest, release_stamp


class Ended(Exception):
    """In the place of a process's end."""


@pytest.fixture
def own(monkeypatch):
    def end(code):
        raise Ended(code)

    monkeypatch.setattr(module.os, "_exit", end)
    monkeypatch.setattr(module, "LOOK_S", -1.0)
    current = [True]
    made = OwnCode(TaskType.CLIENT_APP, print, release="ab", is_current=lambda: current[0])
    return made, current


def test_changed_files_end_it_once_nothing_runs(own, caplog):
    executor, current = own
    assert executor.get_eligible_capacity({TaskType.CLIENT_APP, TaskType.SERVER_APP})[0] == {TaskType.CLIENT_APP}
    current[0] = False
    executor._running.append((None, None))  # one message is under way
    assert executor.get_eligible_capacity({TaskType.CLIENT_APP})[0] == set()
    executor._running.clear()
    with pytest.raises(Ended, match=str(CHANGED)):
        executor.get_eligible_capacity({TaskType.CLIENT_APP})
    assert "starts afresh" in caplog.text


def test_the_stamp_of_the_release_is_compared_with_the_one_it_was_started_with():
    assert _current(None)() and _current(release_stamp())()
    assert not _current("another")()


def test_a_digest_is_read_anew_once_it_is_forgotten():
    first = own_digest()
    forget_digest()
    assert own_digest() == first


def test_an_ended_child_is_seen_before_and_after_it_is_waited_for():
    import os

    child = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "read line"], dict(os.environ), file_actions=[])
    os.kill(child, 9)
    while not _has_ended(child):
        pass
    os.waitpid(child, 0)
    assert _has_ended(child)
