"""Waits grow with the time that nothing happened, and never beyond what would have been waited anyway."""

import math

import pytest

from common.runtime import waits as module
from common.runtime.waits import SHORTEST_S, Waits


class Clock:
    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_a_wait_is_a_tenth_of_the_time_that_nothing_happened(clock):
    waits = Waits()
    waits.sleep(3.0)
    clock.now = 110.0
    waits.sleep(3.0)
    clock.now = 400.0
    waits.sleep(3.0)
    waits.begin()
    waits.sleep(3.0)
    assert clock.slept == [SHORTEST_S, 1.0, 3.0, SHORTEST_S]


def test_what_comes_after_any_time_is_seen_within_a_tenth_of_it_and_looks_stay_few(clock):
    for gap in (0.1, 1.0, 17.0, 100.0, 600.0):
        waits, began, looks = Waits(longest_s=3.0), clock.now, 0
        while clock.now - began < gap:
            waits.sleep()
            looks += 1
        assert clock.now - began - gap <= max(SHORTEST_S, min(3.0, 0.1 * gap) + 1e-9)
        growing = math.log(max(1.0, min(gap, 30.0) / 0.5), 1.1)  # each a tenth longer, between 0.05 and 3 s
        assert looks <= 11 + growing + max(0.0, gap - 30.0) / 3.0
