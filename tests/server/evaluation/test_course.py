"""Learning curves and replay by golden values."""

import pytest

from server.evaluation.course import area_under, burden, course_of, replayed, rounds_to


@pytest.mark.parametrize(
    ("scores", "rounds", "area"),
    [
        ([0.0, 0.5, 0.9, 0.96, 1.0], 3, (0.25 + 0.7 + 0.93 + 0.98) / 4),
        ([0.8, 0.79, 0.81], 0, (0.795 + 0.8) / 2),
        ([0.0, None, 0.4, None, 0.8], 4, (2 * 0.2 + 2 * 0.6) / 4),  # validated every second round
        ([None, 0.4, 0.4], 1, 0.4),
        ([0.0, 0.0], None, 0.0),
        ([None, 0.5], 1, None),
        ([], None, None),
    ],
)
def test_golden_courses(scores, rounds, area):
    assert rounds_to(scores) == rounds
    assert area_under(scores) == (None if area is None else pytest.approx(area))


def test_a_course_begins_with_the_start_and_turns_a_distance():
    rounds = [{"validation": {"pooled": 4.0}}, {"validation": {"pooled": None}}]
    assert course_of({"validation": {"pooled": 9.0}}, rounds, sign=-1) == [-9.0, -4.0, None]
    assert course_of(None, rounds[:1]) == [None, 4.0]


ROUNDS = [
    {"train": {"CHUM": {"cases": 2, "seen": 4}, "MDA": {"cases": 6, "seen": 12}}},
    {"train": {"CHUM": {"cases": 2}, "MDA": {"cases": 6}}},
    {"train": {"CHUM": {"cases": 2}}, "void": True},
]


def test_what_a_memory_gave_is_told_as_often_as_it_was_taken():
    assert replayed(ROUNDS, {"at": ["CHUM"]}) == (6.0, 24.0)
    assert replayed(ROUNDS, {}) == (0.0, 24.0)
    assert replayed(ROUNDS, {"share": 0.25}) == (8.0, 32.0)  # a quarter of the steps, beside what is counted
    assert burden([(6.0, 24.0), (0.0, 12.0)]) == pytest.approx(1 / 6)
    assert burden([(0.0, 0.0)]) is None
