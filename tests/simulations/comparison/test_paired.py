"""Resampled metrics are the metrics of the patients that were drawn, however fast they are made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config.step import Step
from common.config.task import ClassificationTask, PrognosisTask, SegmentationTask
from common.metrics import Estimate
from common.tasks import build_task, pooled_metrics
from simulations.comparison.paired import Patient, difference_of, resampled, strata_of, value_of_patients

SEGMENTATION = Step(name="s", task=SegmentationTask(structures=["GTVp", "GTVn"]))
PROGNOSIS = Step(name="p", task=PrognosisTask())
CLASSIFICATION = Step(name="c", task=ClassificationTask(classes=["hpv"], form="binary", target="hpv"))


def a_record(step, rng):
    if step is SEGMENTATION:
        truth, predicted = rng.integers(0, 40, 2), rng.integers(1, 40, 2)
        return {"intersection": np.minimum(truth, predicted) * 0.7, "predicted": predicted, "truth": truth}
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
    [(SEGMENTATION, "dice"), (SEGMENTATION, "dsc_agg"), (PROGNOSIS, "c_index"), (CLASSIFICATION, "auroc")],
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
