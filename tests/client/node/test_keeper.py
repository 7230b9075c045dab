"""The keeper's parent is lent while it is what the files say, and to nobody otherwise; its death is no message's."""

import multiprocessing
import os
import time

import pytest

from client.center.wanted import Wanted
from client.node import keeper as module
from client.node.keeper import DEATHS, IDLE_S, Keeper
from common.runtime.warm import WarmContext

FORK = multiprocessing.get_context("fork")
LOADED: list[Wanted] = []


def load(wanted):
    LOADED.append(wanted)


def never(wanted):
    time.sleep(60)


def fail(wanted):
    raise OSError("no weights")


def tell(connection):
    connection.send([wanted.sets for wanted in LOADED])


@pytest.fixture
def files(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("center.yaml", "data/one.nii.gz"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def kept():
    made = []

    def make(how=load, **options):
        made.append(Keeper(FORK, how, **options))
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()


def wanted(files, *sets, order="step 1", seconds=60.0, most=10 << 40):
    named = (str(files / "center.yaml"), str(files / "data"))
    return Wanted(named[0], order, tuple(sets), named, (str(files / "cache"),), seconds, most)


def said(keeper, *hints):
    """As messages' processes say it: each through the pipe that it was lent."""
    for hint in hints:
        lent = keeper.lend()
        lent.hint.send_bytes(hint.to_bytes())
        lent.close()
    keeper.tend()


def ready(keeper, *, within_s=20.0):
    until = time.monotonic() + within_s
    while keeper.parent is None and time.monotonic() < until:
        keeper.tend()
        time.sleep(0.01)
    return keeper.parent


def lent_place(keeper):
    lent = keeper.lend()
    lent.close()
    return lent.place


def found_in(place):
    ours, theirs = FORK.Pipe()
    process = WarmContext(place).Process(target=tell, args=(theirs,))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def test_what_a_message_loaded_the_next_one_finds(files, kept):
    keeper = kept()
    assert lent_place(keeper) is None
    said(keeper, wanted(files, ("A", "B")))
    assert ready(keeper) and found_in(lent_place(keeper)) == [(("A", "B"),)]
    said(keeper, wanted(files, ("A", "B")))
    assert keeper.parent is not None, "nothing new: the same parent"
    said(keeper, wanted(files, ("C",)))
    assert ready(keeper) and found_in(lent_place(keeper)) == [(("A", "B"),), (("A", "B"), ("C",))]


def slowly(wanted):
    time.sleep(0.3)
    LOADED.append(wanted)


def test_what_is_said_while_it_loads_is_loaded_after_that_and_nothing_begins_anew(files, kept):
    keeper = kept(slowly)
    said(keeper, wanted(files, ("A",)))
    [first] = keeper._parents
    said(keeper, wanted(files, ("B",)))
    assert keeper._parents == [first]
    until = time.monotonic() + 20
    while len(keeper._parents) < 2 or keeper.parent is None:
        assert time.monotonic() < until
        keeper.tend()
        time.sleep(0.01)
    assert found_in(lent_place(keeper)) == [(("A",),), (("A",), ("B",))]


def test_another_step_has_a_parent_of_its_own(files, kept):
    keeper = kept()
    said(keeper, wanted(files, ("A",)))
    first = ready(keeper)
    said(keeper, wanted(files, ("Z",), order="step 2"))
    second = ready(keeper)
    assert second is not None and second is not first and not first.is_alive
    assert found_in(lent_place(keeper)) == [(("Z",),)]


@pytest.mark.parametrize("name", ["center.yaml", "data/one.nii.gz", "data/two.nii.gz"])
def test_a_changed_file_ends_the_parent_before_the_next_message(files, kept, name, caplog):
    caplog.set_level("INFO")
    keeper = kept()
    said(keeper, wanted(files, ("A",)))
    parent = ready(keeper)
    (files / name).write_text("another")
    assert lent_place(keeper) is None and not parent.is_alive
    assert "Its files have changed" in caplog.text


def test_what_the_node_itself_writes_ends_nothing(files, kept):
    keeper = kept()
    (files / "cache").mkdir()
    hint = wanted(files, ("A",))
    said(keeper, Wanted(hint.center, hint.order, hint.sets, (str(files),), hint.without, hint.seconds, hint.memory))
    assert ready(keeper)
    (files / "cache" / "prepared").write_text("a volume")
    assert lent_place(keeper) is not None


def test_a_dead_parent_is_started_again_with_a_sentence_but_not_for_ever(files, kept, caplog):
    keeper = kept()
    said(keeper, wanted(files, ("A",)))
    for count in range(1, DEATHS + 1):
        parent = ready(keeper)
        assert parent is not None
        os.kill(parent.process.pid, 9)
        parent.process.join()
        keeper.tend()
        assert f"warm parent {parent.process.pid} ended (exit code -9)" in caplog.text
        assert ("loads for itself now" in caplog.text) == (count == DEATHS)
    said(keeper, wanted(files, ("A",)))
    assert ready(keeper, within_s=0.3) is None and lent_place(keeper) is None


def given_up(keeper, caplog, reason):
    until = time.monotonic() + 20
    while reason not in caplog.text and time.monotonic() < until:
        keeper.tend()
        time.sleep(0.01)
    assert reason in caplog.text and keeper.parent is None


@pytest.mark.parametrize(
    ("how", "limits", "reason"),
    [
        (never, {"seconds": 0.1}, "longer than policy.maximum_seconds (0.1 s)"),
        (never, {"most": 1000}, "policy.maximum_memory_gb"),
        (fail, {}, "could not load (OSError: no weights)"),
    ],
)
def test_a_parent_beyond_its_limits_is_ended_and_not_tried_again(files, kept, caplog, how, limits, reason):
    keeper = kept(how)
    hint = wanted(files, ("A",), **limits)
    said(keeper, hint)
    given_up(keeper, caplog, reason)
    said(keeper, hint)
    assert not keeper._parents


def test_without_messages_the_cases_do_not_stay_in_memory(files, kept):
    now = [1000.0]
    keeper = kept(clock=lambda: now[0])
    said(keeper, wanted(files, ("A",)))
    parent = ready(keeper)
    now[0] += IDLE_S + 1
    keeper.tend()
    assert keeper.parent is None and not parent.is_alive


def test_too_many_files_to_look_at_keep_the_model_only(files, kept, monkeypatch):
    counted = module.stamp
    monkeypatch.setattr(module, "stamp", lambda paths, **given: counted(paths, **given, most=1))
    keeper = kept()
    said(keeper, wanted(files, ("A",)))
    assert ready(keeper) and found_in(lent_place(keeper)) == [()]


def test_a_process_that_ends_without_a_word_wants_nothing(files, kept):
    keeper = kept()
    lent = keeper.lend()
    lent.close()
    other = keeper.lend()
    other.hint.send_bytes(b"no JSON")
    other.close()
    keeper.tend()
    assert keeper.parent is None and not keeper._hints


def test_what_is_wanted_arrives_as_it_was_sent(files):
    hint = wanted(files, ("A", "B"), ())
    assert Wanted.from_bytes(hint.to_bytes()) == hint
    assert hint.covers(wanted(files, ("A", "B"))) and not hint.covers(wanted(files, ("B", "A")))
    assert not hint.covers(wanted(files, ("A", "B"), order="step 2"))
