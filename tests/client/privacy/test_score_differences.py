"""The same patients, scored twice: no threshold, model, temperature or grid takes 1 to 4 of them out of a cell (C2).

Each test is an attack of DEFECTS C2, at a hospital's minimum of 5, on what leaves the gate. What counts patients is
told in whole multiples of five and what is left over of all, so the difference of two answers is of whole cells.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.release import Minimum, released
from client.privacy.rows import shared_rows
from client.privacy.sums import event_times_of, labels_of, scores_of, shared_of
from common.config.step import Step
from common.config.task import PrognosisTask, SegmentationTask
from common.exact.columns import Layout, Rows
from common.exact.objectives import HESSIAN, build_objective
from common.exact.step import target_of
from common.protocol.messages import Order, Reply
from common.tasks import build_task
from common.tasks.cuts import EVENTS, HISTOGRAM
from tests.client.privacy.test_release import SPECS, observed, order_for

FIVE = Minimum(cases=5, cell=5)
COUNT = 43  # patients; three are left over of all


def told(task, records, *, threshold=0.5):
    """Scores with curves, as they leave."""
    sums = scores_of(task, records, order_for(threshold), minimum=5)
    reply = Reply("A", sums=sums, counts={"cases": len(records)})
    return released(reply, minimum=FIVE, cells=task.cells).sums


def whole(counts, total):
    """Whether cumulated counts are multiples of five, or the total."""
    rising = np.round(np.cumsum(counts, axis=-1), 9)
    return bool(((rising % 5 == 0) | (rising == np.asarray(total)[..., None])).all())


def survivors(seed, *, count=COUNT):
    rng = np.random.default_rng(seed)
    risk = rng.random(count)
    curves = np.exp(-np.outer(risk, np.arange(8)) / 3)
    event, time = (rng.random(count) < 0.5).astype(float), rng.uniform(0, 2000, count)
    return [
        {"time": np.array(t), "event": np.array(e), "risk": np.array(r), "survival": s}
        for t, e, r, s in zip(time, event, risk, curves, strict=True)
    ]


@pytest.mark.parametrize("loss", ["deephit", "cox"])
def test_a_sweep_of_the_threshold_isolates_nobody(loss):
    """Before: neighboring thresholds' Kaplan-Meier counts differed by the patient between them, 7 of 7."""
    task, records = build_task(SPECS[loss]), survivors(1)
    thresholds = sorted(float(o["risk"]) for o in records)
    answers = [told(task, records, threshold=t) for t in thresholds]
    above = [float(a["km_at_risk"][1, 0]) for a in answers]
    events = [float(a["km_events"][1].sum()) for a in answers]
    assert above[0] > above[-1] and len(set(above)) > 4, "a threshold still splits the patients"
    left_over = {sum(o["event"] == e for o in records) % 5 for e in (0, 1)}
    steps = {abs(a - b) for a, b in pairwise(above)} | {abs(a - b) for a, b in pairwise(events)}
    assert steps - {0} and all(step == 0 or step >= 5 for step in steps), steps
    for answer in answers:
        for row in (0, 1):
            own = answer["km_events"][row]
            assert whole(own[::-1], own.sum()) and own.sum() % 5 in {0, *left_over}
            at_risk = np.r_[answer["km_at_risk"][row], 0]
            censored = at_risk[:-1] - at_risk[1:] - own
            assert whole(censored[::-1], censored.sum()) and not ((censored > 0) & (censored < 5)).any()


def test_a_model_that_differs_in_one_patient_differs_in_no_few():
    """Two adapters, alike but for one patient's score: before, the histograms' difference was that patient's label."""
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, COUNT), rng.normal(0, 2, COUNT)
    task = build_task(SPECS["binary"])

    def answer(scores):
        return told(
            task, [{"score": np.array([s]), "label": np.array([float(y)])} for s, y in zip(scores, label, strict=True)]
        )

    first = answer(score)
    for patient in range(COUNT):
        for moved in (-9.0, 0.01, 9.0):
            other = score.copy()
            other[patient] = moved
            second = answer(other)
            for name, of in (("positives", 1), ("negatives", 0)):
                total = float((label == of).sum())
                assert whole(first[name][0], total) and whole(second[name][0], total)
                change = np.abs(np.cumsum(second[name][0] - first[name][0]))
                assert not ((change > 0) & (change < 5)).any() or total in np.cumsum(second[name][0])
            table = second.get("confusion", np.zeros((1, 2, 2)))[0]
            assert ((table % 5 > 0).sum(axis=1) <= 1).all()


def test_a_score_that_is_a_variable_tells_of_the_middle_of_five_and_of_no_extreme():
    """An adapter whose output is the age: 7 of 7 patients were alone in a bin, with label."""
    age = np.r_[np.linspace(-3, 3, 19), 60.0]  # one patient far out
    task = build_task(SPECS["binary"])
    records = [{"score": np.array([a]), "label": np.array([1.0])} for a in age]
    cells = told(task, records)["positives"][0]
    assert cells[cells > 0].tolist() == [5, 5, 5, 5]
    without = told(task, [*records[:-1], {"score": np.array([4.0]), "label": np.array([1.0])}])["positives"][0]
    assert np.array_equal(cells, without), "where the farthest patient lies is nowhere in it"
    alone = [{"score": np.array([9.0 * (n == 7)]), "label": np.array([float(n % 2)])} for n in range(40)]
    nobody = [{"score": np.array([0.0]), "label": o["label"]} for o in alone]
    for name in ("positives", "negatives", "confusion"):
        first, second = told(task, alone).get(name), told(task, nobody).get(name)
        assert np.array_equal(first, second) or (name == "confusion" and not first.any()), (
            "a model made for one patient"
        )


def test_a_sweep_of_the_temperature_moves_whole_cells_between_reliability_bins():
    rng = np.random.default_rng(2)
    label, score = rng.integers(0, 2, COUNT), rng.normal(0, 2, COUNT)
    records = [{"score": np.array([s]), "label": np.array([float(y)])} for s, y in zip(score, label, strict=True)]
    seen = set()
    for temperature in np.geomspace(0.1, 10, 40):
        task = build_task(SPECS["binary"], {"temperature": np.array(temperature)})
        sums = told(task, records)
        yes, no = sums["reliability_observed"], sums["reliability_cases"] - sums["reliability_observed"]
        assert whole(yes, label.sum()) and whole(no, COUNT - label.sum())
        assert not ((yes > 0) & (yes < 5)).any() and not ((no > 0) & (no < 5)).any()
        seen.add(tuple(sums["reliability_cases"]))
    assert len(seen) > 3


def test_grids_three_days_apart_differ_by_whole_cells():
    """The order names the cuts and the horizon: before, labels counted on two of them isolated days."""
    records, seen = survivors(3), []
    target = {"days": torch.tensor([float(o["time"]) for o in records])}
    target["event"] = torch.tensor([float(o["event"]) for o in records])
    for shift in np.arange(0.0, 600.0, 3.0):
        spec = PrognosisTask(bins=8, horizon_days=900 + shift, cuts_days=[n * (900 + shift) / 7 for n in range(8)])
        task = build_task(spec)
        sums = released(
            Reply("A", sums=labels_of(task, target, minimum=5)), minimum=FIVE, cells=task.cells, over=COUNT
        ).sums
        seen.append(np.r_[sums["censoring_at_risk"], sums["censoring_censored"]])
        order = Order(Step("s", task=spec), 1, 1, None, "", None)  # type: ignore[arg-type]
        found = released(
            Reply("A", sums=event_times_of(order, target, minimum=5)), minimum=FIVE, cells=(HISTOGRAM,), over=COUNT
        ).sums[EVENTS]
        assert not ((found > 0) & (found < 5)).any()
        assert found.sum() % 5 == 0 or found.sum() == target["event"].sum()
    steps = np.abs(np.diff(np.array(seen), axis=0))
    assert steps.any() and not ((steps > 0) & (steps < 5)).any()


def test_two_grids_of_an_exact_fit_have_no_patients_row_between_them():
    """C1 in two steps: Hessians at beta 0 on grids a few days apart differed by one row."""
    rng = np.random.default_rng(4)
    layout, values = Layout(("age",)), rng.normal(60, 9, (COUNT, 1))
    days, event = rng.uniform(0, 1500, COUNT), (rng.random(COUNT) < 0.5).astype(float)
    target = {"days": torch.tensor(days), "event": torch.tensor(event)}
    goal, at_risk = build_objective("hazard", bins=8), []
    for shift in np.arange(0.0, 200.0, 2.0):
        step = Step("s", task=PrognosisTask(loss="hazard", bins=8, cuts_days=[n * (200.0 + shift) for n in range(8)]))
        rows = Rows(values, np.ones((COUNT, 1)), target_of(step, target))
        order = Order(step, 1, 1, None, "", None)  # type: ignore[arg-type]
        order.step.federation.objective = "hazard" if hasattr(order.step.federation, "objective") else ""
        shared = shared_of(order, layout, rows, target=target, minimum=5)
        assert not shared.silent
        hessian = goal.sums(shared.rows.values, shared.rows.target, np.zeros(goal.shape(1)))[HESSIAN][0]
        at_risk.append(4 * np.diag(hessian)[:8])
    at_risk = np.round(np.array(at_risk), 6)
    change = np.abs(at_risk[1:] - at_risk[:-1])
    assert change.any() and not ((change > 0) & (change < 5)).any()
    assert shared_rows(layout, rows, objective="hazard", minimum=1).rows is rows


def test_two_models_that_find_something_in_one_empty_case_say_the_same():
    """``dice_cases`` counts where model or truth has a structure: one false positive more was one patient."""
    task = build_task(SegmentationTask(structures=["GTVn"]))

    def answer(false):
        truth = np.r_[np.ones(22), np.zeros(18)]
        wrong = np.r_[np.zeros(22), np.ones(false), np.zeros(18 - false)]
        records = [
            {"intersection": np.array([t / 2]), "predicted": np.array([t + w]), "truth": np.array([t])}
            for t, w in zip(truth, wrong, strict=True)
        ]
        return told(task, records)

    counts = [float(answer(false)["dice_cases"][0]) for false in range(19)]
    assert counts == [20] * 3 + [25] * 5 + [30] * 5 + [35] + [40] * 5
    assert answer(1)["dice_sum"][0] / 20 == pytest.approx((22 * 0.5) / 23), "the mean is that of all who are scored"


@pytest.mark.parametrize("name", ["deephit", "cox", "binary", "multi_label", "multi_class"])
@settings(max_examples=40, deadline=None)
@given(count=st.integers(5, 60), seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)), threshold=st.floats(0, 1))
def test_whatever_two_models_say_cells_differ_by_whole_ones(name, count, seeds, threshold):
    """The same patients and outcomes under two random models and two thresholds."""
    task, first = observed(name, count, seeds[0])
    _, other = observed(name, count, seeds[1])
    outcome = ("time", "event") if name in ("deephit", "cox") else ("label",)
    second = [{**o, **{key: f[key] for key in outcome}} for f, o in zip(first, other, strict=True)]
    one, two = told(task, first), told(task, second, threshold=threshold)
    if name in ("deephit", "cox"):
        events = sum(float(o["event"]) for o in first)
        for sums in (one, two):
            left = sums["km_events"].sum(axis=0)
            assert set(np.round(sums["km_events"].sum(axis=1) % 5)) <= {0, round(events % 5)}
            assert not ((left > 0) & (left < 5)).any()
        return
    for sums in (one, two):
        for kind in ("positives", "negatives"):
            totals = one[kind].sum(axis=1)
            assert all(whole(row, total) for row, total in zip(sums[kind], totals, strict=True))
            assert np.array_equal(totals, sums[kind].sum(axis=1)), "how many are counted is no model's doing"
