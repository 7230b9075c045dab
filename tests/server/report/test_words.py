"""Numbers as people read them."""

from __future__ import annotations

import pytest

from server.report.charts import ticks
from server.report.words import (
    duration,
    listed,
    metric_name,
    minimums,
    number,
    p_value,
    share,
    signed,
    size,
    spelled,
    task_name,
)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number(-0.0), "0.000"),
        (number(-0.25), "−0.250"),
        (number(None), "—"),
        (signed(0.0004), "0.000"),
        (signed(0.021), "+0.021"),
        (signed(-0.004), "−0.004"),
        (size(999), "999 B"),
        (size(38_420), "38.4 kB"),
        (size(385_128), "385 kB"),
        (size(1_145_000_000), "1.15 GB"),
        (duration(4.21), "4.2 s"),
        (duration(185), "3 min 05 s"),
        (duration(7800), "2 h 10 min"),
        (share(1, 52), "1/52"),
        (share(0.83, 1), "83 %"),
        (share(2.4, 1), "2.4 ×"),
        (p_value(0.0002), "p < 0.001"),
        (p_value(0.42), "p = 0.42"),
        (spelled(7), "seven"),
        (spelled(40), "40"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (metric_name("dice.GTVp"), "Dice GTVp"),
        (task_name("tumour_ctpet"), "Tumour CT + PET"),
    ],
)
def test_words(said, expected):
    assert said == expected


def test_ticks_enclose_the_values_with_round_steps():
    assert ticks(0.37, 0.61) == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert ticks(0, 0.226, about=3) == [0, 0.1, 0.2, 0.3]
    assert ticks(0.5, 0.5)[0] <= 0.5 <= ticks(0.5, 0.5)[-1]


def test_the_minimums_that_held_are_said_where_the_run_knows_them():
    assert minimums({}) is None
    said = minimums({"minimum_cases": 5, "minimum_cell": 3})
    assert said is not None and said.startswith("5 to train at a center, 3 behind a result")
