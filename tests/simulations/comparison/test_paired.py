"""Resampled metrics are the metrics of the patients that were drawn, however fast they are made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config.step import Step
from common.config.task import ClassificationTask, PrognosisTask, SegmentationTask
from common.metrics import Estimate
from common.tasks import build_task, pooled_metrics
from simulations.comparison.paired import METRICS, Patient, difference_of, resampled, strata_of, value_of_patients

SEGMENTATION = Step(name="s", task=SegmentationTask(structures=["GTVp", "GTVn"]))
PROGNOSIS = Step(name="p", task=PrognosisTask())
CLASSIFICATION = Step(name="c", task=ClassificationTask(classes=["hpv"], form="binary", target="hpv"))


def a_record(step, rng):
    if step is SEGMENTATION:
        truth, predicted = rng.integers(0, 40, 2), rng.integers(1, 40, 2)
        missed = (truth == 0) | (predicted == 0)
        return {
            "intersection": np.minimum(truth, predicted) * 0.7,
            "predicted": predicted,
            "truth": truth,
            "hd95": np.where(missed, 500.0, rng.integers(0, 30, 2) / 2),
            "surface_dice": np.where(missed, 0.0, rng.random(2)),
            **{f"lesions_{what}": rng.integers(0, 3, 2) for what in ("found", "false", "missed")},
        }
    if step is PROGNOSIS:
        bins = build_task(step.task).bins
        curve = np.sort(rng.random(bins))[::-1]
        return {
            "time": rng.integers(1, 9) * 100.0,
            "event": rng.integers(0, 2),
            "risk": rng.random(),
            "survival": curve,
        }
    return {"score": rng.normal(size=1), "label": rng.integers(0, 2, 1)}


def patients(step, rng, count, seeds=2):
    made = []
    for number in range(count):
        records = [{n: np.asarray(v) for n, v in a_record(step, rng).items()} for _ in range(seeds)]
        for record in records[1:]:  # outcomes are the patient's own
            record |= {n: records[0][n] for n in ("time", "event", "label", "truth") if n in record}
        made.append(Patient("AB"[number % 2], f"{number:03d}", number % 3, tuple(records)))
    return made


@pytest.mark.parametrize(
    ("step", "metric"),
    [
        *((SEGMENTATION, metric) for metric in METRICS["segmentation"]),
        (PROGNOSIS, "c_index"),
        (CLASSIFICATION, "auroc"),
    ],
)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_draw_is_the_metric_of_the_patients_that_it_drew(step, metric, seed):
    rng = np.random.default_rng(seed)
    found = patients(step, rng, 12)
    weights = rng.integers(0, 3, (4, 12))
    value, drawn = resampled(step, found, metric, weights)
    assert value == pytest.approx(value_of_patients(step, found, metric), nan_ok=True)
    for row, made in zip(weights, drawn, strict=True):
        chosen = [p for p, times in zip(found, row, strict=True) for _ in range(times)]
        expected = value_of_patients(step, chosen, metric)
        assert made == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


def distant(*cases):
    """Patients of one structure each: (HD95 in mm, volume predicted, volume drawn)."""
    names = ("hd95", "predicted", "truth")
    return [
        Patient("A", str(i), 0, ({n: np.array([v]) for n, v in zip(names, case, strict=True)},))
        for i, case in enumerate(cases)
    ]


def test_a_missed_structure_is_a_distance_and_one_that_nobody_drew_is_none():
    step = Step(name="s", task=SegmentationTask(structures=["GTVp"]))
    cases = [(2.0, 1, 1), (3.0, 1, 1), (500.0, 0, 1), (500.0, 1, 0), (0.0, 0, 0), (0.0, 0, 0)]
    assert value_of_patients(step, distant(*cases), "hd95") == 500.0
    assert value_of_patients(step, distant(*cases[:3]), "hd95") == 3.0
    assert value_of_patients(step, distant(*cases[4:]), "hd95") is None


def test_the_distance_of_several_structures_and_seeds_is_the_mean_of_their_medians():
    def patient(number, *seeds):
        present = {"predicted": np.ones(2), "truth": np.ones(2)}
        return Patient("A", str(number), 0, tuple({"hd95": np.array(seed), **present} for seed in seeds))

    found = [patient(0, (1.0, 10.0), (3.0, 10.0)), patient(1, (2.0, 30.0), (4.0, 10.0)), patient(2, (9, 50), (5, 10))]
    assert value_of_patients(SEGMENTATION, found, "hd95") == ((2 + 30) / 2 + (4 + 10) / 2) / 2


def test_a_difference_is_paired_and_needs_five_patients():
    rng = np.random.default_rng(1)
    found = patients(SEGMENTATION, rng, 12)
    assert difference_of(SEGMENTATION, found, found, "dice", draws=50) == Estimate(0.0, 0.0, 0.0, len(found))
    alone = difference_of(SEGMENTATION, found, None, "dice", draws=50)
    assert alone.low < alone.value < alone.high
    few = difference_of(SEGMENTATION, found[:4], None, "dice", draws=50)
    assert few.value is not None and few.interval is None
    assert pooled_metrics(build_task(SEGMENTATION.task), [p.records[0] for p in found])["dice"] is not None


def test_patients_of_small_centers_are_drawn_together_so_that_none_is_in_every_draw():
    found = [Patient(center, str(i), 0, ()) for center, count in {"A": 5, "B": 1, "C": 2}.items() for i in range(count)]
    assert strata_of(found) == ["A"] * 5 + [""] * 3
