"""Declared columns: the same matrix at every center, rare levels among the others, unknown cells unknown."""

from __future__ import annotations

import numpy as np
import pytest
from lifelines.utils import concordance_index

from client.data.case import Case
from common.data.records import record_layout
from common.errors import DataError
from simulations.studies.survival_table import cohort_of
from simulations.survival.arms import ARMS
from simulations.survival.cohort import Cohort, Learning
from simulations.survival.declared import with_columns
from simulations.survival.evaluation import ALL_PAIRS, evaluate, risk_of, task_of

ONE = Learning(penalties=[10.0], rounds=2)


def cohort(counts: dict[str, int]) -> Cohort:
    rng = np.random.default_rng(0)
    cases = {
        center: [
            Case(f"{center}-{i:02d}", center, {}, None, {"age": 50.0 + i}, float(np.ceil(900 * rng.random())),
                 int(rng.random() < 0.7), None, None)
            for i in range(count)
        ]
        for center, count in counts.items()
    }  # fmt: skip
    return cohort_of(cases, record_layout(["age"]))


def test_levels_and_numbers_become_columns_and_rare_levels_join_the_others_at_their_center_alone():
    base = cohort({"A": 4, "B": 4})
    stage = {f"A-0{i}": s for i, s in enumerate(["I", "I", "II", ""])} | {f"B-0{i}": "II" for i in range(4)}
    size = {f"{c}-0{i}": str(i) for c in "AB" for i in range(3)}
    found = with_columns(base, {"stage": stage, "size": size}, {"stage": ["I", "II"], "size": []}, fewest=2)
    assert found.layout.values == ("age", "stage=I", "stage=II", "stage=other", "size")
    assert found.layout.flags == ("age", "stage", "size") and found.layout.flag_of == (0, 1, 1, 1, 2)
    assert found.rows["A"].values[:, 1:4].tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert found.rows["B"].values[:, 1:4].tolist() == [[0, 1, 0]] * 4
    assert found.rows["A"].flags[:, 1:].tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]
    assert found.rows["A"].values[:, 4].tolist() == [0, 1, 2, 0]
    assert base.layout.values == ("age",)


def test_a_number_that_is_none_is_refused_with_what_to_declare():
    cells = {"size": {f"A-0{i}": text for i, text in enumerate(["1", "two", "3"])}}
    with pytest.raises(DataError, match=r"study\.columns=\{size: \[low, high\]\}"):
        with_columns(cohort({"A": 3}), cells, {"size": []}, fewest=1)


def test_a_fixed_split_scores_those_who_test_and_all_pairs_are_those_of_one_pooled_test_set():
    everyone = cohort({"A": 14, "B": 11})
    fixed = {"A": np.array([1, 4, 5, 8, 13]), "B": np.array([0, 2, 3, 9])}
    arm = {"federated Newton": ARMS["federated Newton"]}
    seen = []
    found = evaluate(everyone, arm, ONE, folds=3, repeats=2, fixed=fixed, all_pairs=True, seen=seen.append)
    pairs = found["federated Newton"]
    assert {name: len(p.comparable) for name, p in pairs.items()} == {"A": 5, "B": 4, ALL_PAIRS: 9}
    train = {c: np.setdiff1d(np.arange(len(everyone.rows[c])), fixed[c]) for c in fixed}
    model = arm["federated Newton"](task_of(everyone.take(train), everyone, ONE))["A"]
    tested = everyone.take(fixed)
    risk = np.concatenate([risk_of(model, tested[c]) for c in "AB"])
    time, event = np.concatenate([tested[c].target for c in "AB"]).T
    whole = pairs[ALL_PAIRS]
    assert whole.concordant.sum() / whole.comparable.sum() == pytest.approx(concordance_index(time, -risk, event))
    assert len(seen) == 1
    within = whole.comparable[:5, :5].sum() + whole.comparable[5:, 5:].sum()
    assert within == pairs["A"].comparable.sum() + pairs["B"].comparable.sum() < whole.comparable.sum()
