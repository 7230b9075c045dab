"""The story of a run says which step of how many it tells, and about how long it still takes."""

from __future__ import annotations

from server.run.narration import Narrator


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def started(step):
    return {"step": step, "centers": ["CHUM"], "adapter_bytes": 2000, "refused": {}}


def finished(step, number):
    return {
        "step": step, "round": number, "train": {"CHUM": {"cases": 2, "loss": 0.5}}, "failed": {}, "void": False,
        "validation": {"pooled": 0.25, "metric": "dice"}, "seconds": {"train": 20.0, "validate": 10.0},
    }  # fmt: skip


def test_steps_are_counted_and_the_time_left_follows_the_pace_of_the_rounds():
    clock, said = Clock(), []
    narrator = Narrator(say=said.append, rounds={"scored": 0, "first": 2, "second": 6}, clock=clock)
    clock.seconds = 600.0  # what came before the first step says nothing about rounds
    narrator.step_started(started("first"))
    for number in (1, 2):
        clock.seconds += 30.0
        narrator.round_finished(finished("first", number), of=2)
    narrator.step_started(started("second"))
    assert said == [
        "[10:00] step 2 of 3, first: trains at CHUM; 2.0 kB a message",
        "[10:30]   round 1/2  loss 0.5000  validation dice 0.250  1 centers  30.0 s, about 4 min left",
        "[11:00]   round 2/2  loss 0.5000  validation dice 0.250  1 centers  30.0 s, about 3 min left",
        "[11:00] step 3 of 3, second: trains at CHUM; 2.0 kB a message, about 3 min left",
    ]


def test_nothing_is_guessed_where_the_whole_run_is_not_known():
    said = []
    narrator = Narrator(say=said.append, clock=Clock())
    narrator.step_started(started("first"))
    narrator.round_finished(finished("first", 1), of=2)
    assert said[0] == "[00:00] first: trains at CHUM; 2.0 kB a message" and said[1].endswith("30.0 s")
