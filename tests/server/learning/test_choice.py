"""Which ridge is kept: the best by validation, of equals the strongest, the declared one where nobody can tell."""

from __future__ import annotations

import pytest

from server.learning.exact.choice import Worth, chosen


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("dsc_agg", {1.0: 0.5, 10.0: 0.7, 100.0: 0.6}, 10.0),
        ("dsc_agg", {1.0: 0.7, 10.0: 0.7, 100.0: 0.6}, 10.0),
        ("loss", {1.0: 0.2, 10.0: 0.7, 100.0: 0.6}, 1.0),
        ("dsc_agg", {1.0: None, 10.0: None, 100.0: 0.6}, 100.0),
        ("dsc_agg", {1.0: None, 10.0: None, 100.0: None}, 3.0),
    ],
)
def test_validation_chooses_the_ridge(metric, values, expected):
    scores = {penalty: Worth(metric, value).score for penalty, value in values.items()}
    assert chosen(scores, otherwise=3.0) == expected
