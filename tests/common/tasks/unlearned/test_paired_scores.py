"""What of two models' records is compared, and what of the sums no patients could make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client.privacy.release import Minimum, released
from common.config.task import ClassificationTask, PrognosisTask, SegmentationTask
from common.data.batch import Batch
from common.metrics.concordance import concordance_index, harrell_counts
from common.protocol.messages import Reply
from common.tasks import build_task
from common.tasks.unlearned.paired import (
    differences,
    metrics_compared,
    paired_cells,
    paired_scores,
    paired_shapes,
    wrong_with,
)

HPV = ClassificationTask(classes=["hpv"], form="binary", target="hpv")
STAGES = ClassificationTask(classes=["T1", "T2", "T3"], form="multi_class", target="t_stage")
TUMOR = SegmentationTask(structures=["GTVp", "GTVn"])
RELAPSE = PrognosisTask(loss="cox", bins=5)


def classified(spec, logits, labels):
    task = build_task(spec)
    return task, task.observe(torch.tensor(logits), Batch({}, {}, {"labels": torch.tensor(labels)}))


def volumes(both, predicted, truth):
    rows = zip(both, predicted, truth, strict=True)
    return [
        {n: np.array(v, float) for n, v in zip(("intersection", "predicted", "truth"), r, strict=True)} for r in rows
    ]


def pair(spec, n=30, seed=0):
    """Two models' records of n patients."""
    rng = np.random.default_rng(seed)
    if spec is TUMOR:
        truth = rng.integers(0, 5, (n, 2))
        made = [(np.minimum(truth, p), p) for p in (rng.integers(0, 5, (n, 2)) for _ in range(2))]
        return (build_task(spec),) * 2, *(volumes(both, p, truth) for both, p in made)
    if spec is RELAPSE:
        time, event = rng.integers(1, 2000, n), rng.integers(0, 2, n)
        records = [
            [
                {"time": np.array(t), "event": np.array(e), "risk": np.array(r)}
                for t, e, r in zip(time, event, risk, strict=True)
            ]
            for risk in rng.normal(size=(2, n))
        ]
        return (build_task(spec),) * 2, *records
    width, labels = (1, rng.integers(-1, 2, (n, 1))) if spec is HPV else (3, rng.integers(0, 3, (n, 1)))
    made = [classified(spec, rng.normal(size=(n, width)), labels) for _ in range(2)]
    return (made[0][0], made[1][0]), made[0][1], made[1][1]


ALL = pytest.mark.parametrize("spec", [HPV, STAGES, TUMOR, RELAPSE], ids=["hpv", "stages", "tumor", "relapse"])


@ALL
def test_sums_have_the_declared_shapes_and_are_possible(spec):
    tasks, a, b = pair(spec)
    sums = paired_scores(tasks, a, b, spec=spec)
    assert {name: np.shape(value) for name, value in sums.items()} == paired_shapes(spec)
    assert wrong_with(spec, sums, 30) == ""
    found = differences(spec, {"A": sums})
    assert [*found] == metrics_compared(spec)
    for each in found.values():
        assert each["A"].value == pytest.approx(each["pooled"].value)


@ALL
def test_swapping_the_models_turns_the_difference(spec):
    tasks, a, b = pair(spec)
    one, other = (differences(spec, {"A": paired_scores(tasks, *records, spec=spec)}) for records in ((a, b), (b, a)))
    for metric, each in one.items():
        assert each["A"].value == pytest.approx(-other[metric]["A"].value)
        assert each["A"].variance == pytest.approx(other[metric]["A"].variance)


@ALL
def test_a_model_does_not_differ_from_itself(spec):
    tasks, a, _ = pair(spec)
    for each in differences(spec, {"A": paired_scores(tasks, a, a, spec=spec)}).values():
        assert (each["A"].value, each["A"].variance, each["A"].is_shown) == (0, 0, False)


@ALL
@pytest.mark.parametrize("name", ["paired.b", "paired.dd", "roc.b", "roc.negatives_dd"])
def test_a_lie_must_stay_plausible(spec, name):
    tasks, a, b = pair(spec)
    sums = paired_scores(tasks, a, b, spec=spec)
    if name in sums:
        assert wrong_with(spec, sums | {name: sums[name] + 31.0**2 * 31}, 30)
        assert wrong_with(spec, sums | {name: -1 - sums[name]}, 30)
    assert wrong_with(spec, sums, 29)  # over more patients than are registered


def test_dice_is_of_structures_that_the_patient_has():
    task = build_task(TUMOR)
    a = volumes([[2, 0], [1, 2]], [[2, 1], [3, 2]], [[2, 0], [1, 2]])
    b = volumes([[1, 0], [1, 1]], [[2, 0], [1, 2]], [[2, 0], [1, 2]])
    sums = paired_scores((task, task), a, b, spec=TUMOR)
    assert metrics_compared(TUMOR) == ["dice", "dice_GTVp", "dice_GTVn"]
    np.testing.assert_allclose(sums["paired.n"], [2, 2, 1])
    np.testing.assert_allclose(sums["paired.a"], [1 + (0.5 + 1) / 2, 1 + 0.5, 1])
    np.testing.assert_allclose(sums["paired.b"], [0.5 + (1 + 0.5) / 2, 0.5 + 1, 0.5])
    np.testing.assert_allclose(sums["paired.dd"], [0.25, 0.5, 0.25])


def test_brier_is_the_mean_over_known_classes():
    (tasks_a, a), (tasks_b, b) = (classified(HPV, [[z], [0.0], [9.0]], [[1], [0], [-1]]) for z in (0.0, np.log(3)))
    sums = paired_scores((tasks_a, tasks_b), a, b, spec=HPV)
    assert sums["paired.n"] == 2
    assert sums["paired.a"] == pytest.approx(0.25 + 0.25) and sums["paired.b"] == pytest.approx(0.0625 + 0.25)
    np.testing.assert_array_equal(sums["roc.labels"], [[1, 1]])


def test_concordance_is_harrell_s():
    tasks, a, b = pair(RELAPSE)
    found = differences(RELAPSE, {"A": paired_scores(tasks, a, b, spec=RELAPSE)})["c_index"]["A"]
    for value, records in ((found.a, a), (found.b, b)):
        counts = harrell_counts(*(np.array([r[n] for r in records]) for n in ("time", "event", "risk")))
        assert value == pytest.approx(concordance_index(*counts))


@ALL
def test_pooled_is_over_pairs_within_centers(spec):
    parts = {
        center: paired_scores(*pair(spec, 20, seed)[:1], *pair(spec, 20, seed)[1:], spec=spec)
        for seed, center in enumerate("ABC")
    }
    for metric, each in differences(spec, parts).items():
        inside = [each[center].value for center in "ABC"]
        assert min(inside) - 1e-9 <= each["pooled"].value <= max(inside) + 1e-9, metric
        assert each["pooled"].n == sum(each[center].n for center in "ABC")


def told(spec, tasks, a, b, minimum=5):
    sums = paired_scores(tasks, a, b, spec=spec)
    reply = released(
        Reply("A", sums=sums, counts={"cases": len(a)}), minimum=Minimum(minimum, minimum), cells=paired_cells(spec)
    )
    return reply.sums


def test_the_gate_tells_no_score_of_a_few():
    tasks, a, b = pair(TUMOR, 4)
    assert told(TUMOR, tasks, a, b) == {}
    task = build_task(TUMOR)
    few = volumes([[1, i < 3] for i in range(8)], [[1, 1]] * 8, [[1, i < 3] for i in range(8)])  # 3 have a node
    sums = told(TUMOR, (task, task), few, few)
    np.testing.assert_array_equal(sums["paired.n"], [8, 8, 0])
    np.testing.assert_array_equal(sums["paired.a"][2], 0)
    some = volumes([[1, i < 6] for i in range(12)], [[1, 1]] * 12, [[1, i < 6] for i in range(12)])  # 6 of 12: as of 5
    sums = told(TUMOR, (task, task), some, some)
    assert sums["paired.n"][2] == 5 and sums["paired.a"][2] == pytest.approx(5.0)


def test_the_gate_tells_no_area_of_an_outcome_that_a_few_have():
    labels = [[1]] * 3 + [[0]] * 9
    made = classified(HPV, np.arange(12.0)[:, None], labels)
    sums = told(HPV, (made[0], made[0]), made[1], made[1])
    assert not any(sums[name].any() for name in sums if name.startswith("roc."))
    assert sums["paired.n"] == 12
    enough = classified(HPV, np.arange(12.0)[:, None], [[1]] * 5 + [[0]] * 7)
    sums = told(HPV, (enough[0], enough[0]), enough[1], enough[1])
    np.testing.assert_array_equal(sums["roc.labels"], [[5, 7]])


def test_the_gate_tells_no_concordance_where_a_few_relapsed():
    tasks, a, b = pair(RELAPSE, 12)
    for number, (one, other) in enumerate(zip(a, b, strict=True)):
        one["event"] = other["event"] = np.array(float(number < 3))
    sums = told(RELAPSE, tasks, a, b)
    assert not any(sums[name].any() for name in sums if name != "cases")
