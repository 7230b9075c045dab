"""Runs that share hospitals go one after another; those that share none, or whose process was killed, stop nobody."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from server.deploy.queue import FOLDER, centers_of, in_turn, living, waiting
from tests.helpers.small import small_run


def begun(folder, name, centers, **others):
    """A run in a thread: what it said, an event once it goes, and one that ends it."""
    said, goes, ends = [], threading.Event(), threading.Event()

    def go():
        with in_turn(folder, name, centers, say=said.append, poll_s=0.01, **others):
            goes.set()
            ends.wait(10)

    thread = threading.Thread(target=go)
    thread.start()
    return said, goes, ends, thread


def test_two_runs_that_share_a_hospital_go_one_after_the_other_and_a_third_beside_them(tmp_path):
    first = begun(tmp_path, "first", ["CHUM", "MDA"])
    assert first[1].wait(5)
    second = begun(tmp_path, "second", ["MDA", "HMR"])
    assert not second[1].wait(0.1)
    third = begun(tmp_path, "third", ["CHUP"])
    assert third[1].wait(5)
    everyone = begun(tmp_path, "everyone", [])
    assert not everyone[1].wait(0.1) and not second[1].is_set()
    assert second[0] == ["second waits: first asks the same hospitals and was started before it"]
    assert everyone[0] == ["everyone waits: first, second, third asks the same hospitals and was started before it"]
    assert [ticket.name for ticket in living(tmp_path)] == ["first", "second", "third", "everyone"]
    assert waiting(tmp_path) == ["second waits for first", "everyone waits for first, second, third"]
    first[2].set()
    assert second[1].wait(5) and not everyone[1].wait(0.1)
    for one in (second, third, everyone):
        one[2].set()
    for one in (first, second, third, everyone):
        one[3].join(10)
    assert everyone[1].is_set() and living(tmp_path) == [] and not list((tmp_path / FOLDER).iterdir())


def test_a_ticket_of_a_killed_process_stops_nobody_and_is_removed(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "00000000000000000001-1.json").write_text('{"name": "killed", "centers": []}')
    said: list[str] = []
    with in_turn(tmp_path, "next", [], say=said.append):
        assert [ticket.name for ticket in living(tmp_path)] == ["next"] and said == []


def test_a_run_that_goes_on_without_its_follower_is_waited_for(tmp_path):
    left = [["lost"], ["lost"], []]
    said: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(in_turn(tmp_path, "next", [], orphans=lambda: left.pop(0), say=said.append, poll_s=0.01))
        assert said == ["next waits: lost asks the same hospitals and was started before it"] and left == []


def test_a_runs_hospitals_are_those_of_its_steps():
    assert centers_of(small_run(centers=["MDA", "CHUM"])) == ["CHUM", "MDA"]
    run = small_run(centers=["MDA"])
    run.steps["tumour_ct"].evaluate_at = ["*"]
    assert centers_of(run) == [], "every enrolled one"
