"""A patient more or less changes a noised score's two sums by at most the public number, and by no less than that."""

import numpy as np
import pytest

from client.privacy.noised.scores import bounded
from common.config.task import ClassificationTask, GroundingTask, MaskedTask, PrognosisTask, SegmentationTask
from common.metrics.concordance import concordance_index, harrell_counts
from common.privacy.scores import ratio_of
from common.tasks import build_task

RNG = np.random.default_rng(3)


def segmented(n):
    sizes = RNG.integers(0, 9, (n, 3, 2)).astype(float)
    return [
        {"predicted": p, "truth": t, "intersection": np.minimum(p, t)}
        for p, t in zip(sizes[:, 0], sizes[:, 1], strict=True)
    ]


def followed(n):
    columns = RNG.integers(1, 9, n), RNG.integers(0, 2, n), RNG.integers(0, 5, n)
    return [
        {"time": np.array(float(t)), "event": np.array(e), "risk": np.array(r / 4)}
        for t, e, r in zip(*columns, strict=True)
    ]


def labelled(n, classes=2, exclusive=False):
    scores = RNG.normal(size=(n, classes))
    labels = RNG.integers(0, classes, (n, 1)) if exclusive else RNG.integers(-1, 2, (n, classes))
    return [{"score": s, "label": y} for s, y in zip(scores, labels, strict=True)]


TWO = {"structures": ["GTVp", "GTVn"]}
CASES = {
    "dice": (SegmentationTask(**TWO), segmented),
    "c_index": (PrognosisTask(bins=12), followed),
    "auroc": (ClassificationTask(target="findings", classes=["a", "b"], form="multi_label"), labelled),
    "balanced_accuracy": (
        ClassificationTask(target="t_stage", classes=["1", "2", "3"], form="multi_class"),
        lambda n: labelled(n, 3, exclusive=True),
    ),
    "restored": (
        MaskedTask(sources=["CT:slices"]),
        lambda n: [{"restored": RNG.random(1), "shown": RNG.integers(0, 2, 1).astype(float)} for _ in range(n)],
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("cohort", [4, 9, 30])  # fewer, as many and more than there are patients
def test_one_patient_more_or_less_changes_the_sums_by_at_most_the_public_bound(name, cohort):
    spec, made = CASES[name]
    ratio, records = ratio_of(spec), made(9)
    assert ratio.metric == name
    codes = [f"P{number:02d}" for number in RNG.permutation(9)]
    whole = bounded(ratio, records, codes, cohort=cohort)
    for left_out in range(9):
        kept = [place for place in range(9) if place != left_out]
        less = bounded(ratio, [records[i] for i in kept], [codes[i] for i in kept], cohort=cohort)
        assert np.linalg.norm(whole - less) <= ratio.longest(cohort) * (1 + 1e-12)


def test_a_patient_with_several_records_counts_as_one():
    ratio = ratio_of(CASES["dice"][0])
    same = [{"predicted": np.ones(2), "truth": np.ones(2), "intersection": np.ones(2)}] * 5
    assert bounded(ratio, same, ["one"] * 5, cohort=9) == pytest.approx(np.ones((2, 2)))
    pairs = ratio_of(CASES["c_index"][0])
    records = followed(3)
    once = bounded(pairs, records, ["a", "b", "c"], cohort=9)
    assert np.array_equal(bounded(pairs, [*records, *followed(4)], [*"abc", *"aabb"], cohort=9), once)


def test_without_noise_a_ratio_is_the_tasks_own_score():
    """Dice over cases, balanced accuracy and the concordance index are those of the task; AUROC is of exact pairs."""
    for name in ("dice", "balanced_accuracy"):
        spec, made = CASES[name]
        records = made(12)
        above, below = ratio_of(spec).parts(records)
        whole = build_task(spec).metrics(build_task(spec).sums(_complete(records)))
        assert np.mean(above / below) == pytest.approx(whole[name])
    records = followed(12)
    (above,), (below,) = ratio_of(CASES["c_index"][0]).parts(records)
    columns = (np.array([float(r[key]) for r in records]) for key in ("time", "event", "risk"))
    assert above / below == concordance_index(*harrell_counts(*columns))


def _complete(records):
    return [
        {**record, "hd95": np.zeros(2), "surface_dice": np.zeros(2)} | dict.fromkeys(LESIONS, np.zeros(2))
        if "truth" in record
        else record
        for record in records
    ]


LESIONS = ("lesions_found", "lesions_false", "lesions_missed")


def test_boxes_by_their_score_have_no_bound():
    assert ratio_of(GroundingTask(structures=["GTVp"])) is None
