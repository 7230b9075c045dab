"""Prognosis: pycox's golden values, and the rules that keep a federation's losses and sums finite and exact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter

from common.config.task import PrognosisTask
from common.data.batch import Batch
from common.errors import UnknownName
from common.metrics import kaplan_meier
from common.tasks import build_task, merge_sums, pooled_metrics
from common.tasks.cox import cox_nll
from common.tasks.prognosis import (
    LOSSES,
    deephit_scores,
    discretise,
    log_mass,
    mtlr_scores,
    nll_each,
    rank_loss,
    rank_matrix,
)

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden" / "surv.json"
FLOAT32 = 5e-7  # the golden numbers were computed in float32, with 1e-7 inside the logarithms


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_file():
        pytest.skip(f"golden values are not at {GOLDEN}")
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def b(golden):
    inputs = golden["inputs"]["B"]
    logits = torch.tensor(inputs["logits"], dtype=torch.float64)
    return logits, torch.tensor(inputs["idx"]), torch.tensor(inputs["event"], dtype=torch.float64)


def batch_of(days, event):
    return Batch({}, {}, {"days": torch.tensor(days, dtype=torch.float32), "event": torch.tensor(event).float()})


def test_deephit_likelihood_and_distribution_match_pycox(golden, b):
    logits, index, event = b
    each = nll_each(deephit_scores(logits), index, event)
    assert each.tolist() == pytest.approx(golden["B_nll_pmf_each"], abs=FLOAT32)
    assert each.mean().item() == pytest.approx(golden["B_nll_pmf"], abs=FLOAT32)
    pmf = deephit_scores(logits).softmax(dim=1)
    assert pmf.flatten().tolist() == pytest.approx(np.ravel(golden["B_deephit_pmf_with_tail"]).tolist(), abs=FLOAT32)


def test_ranking_loss_matches_pycox(golden, b):
    logits, index, event = b
    assert rank_matrix(index, event).tolist() == golden["B_rank_mat"]
    for sigma in (0.1, 1.0):
        value = rank_loss(logits, index, event, sigma=sigma).item()
        assert value == pytest.approx(golden[f"B_rank_sigma{sigma}"], abs=FLOAT32)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.2, 0.1), (0.5, 0.1), (1.0, 0.1), (0.2, 1.0)])
def test_deephit_loss_matches_pycox(golden, b, alpha, sigma):
    spec = PrognosisTask(alpha=alpha, sigma=sigma)
    value = LOSSES["deephit"](*b, spec).item()
    assert value == pytest.approx(golden[f"B_deephit_alpha{alpha}_sigma{sigma}"], abs=FLOAT32)


def test_mtlr_matches_pycox(golden, b):
    logits, index, event = b
    each = nll_each(mtlr_scores(logits), index, event)
    assert each.tolist() == pytest.approx(golden["B_mtlr_nll_pycox_each"], abs=FLOAT32)
    assert LOSSES["mtlr"](*b, PrognosisTask()).item() == pytest.approx(golden["B_mtlr_nll_pycox"], abs=FLOAT32)
    pmf = mtlr_scores(logits).softmax(dim=1)
    assert pmf.flatten().tolist() == pytest.approx(np.ravel(golden["B_mtlr_pmf_with_tail"]).tolist(), abs=FLOAT32)


@pytest.mark.parametrize(
    ("targets", "value"),
    [([[0, 1, 0], [1, 0, 0]], 2.3039), ([[0, 1, 1], [1, 1, 1]], 0.3575), ([[0, 1, 0], [1, 1, 1]], 1.1019)],
)
def test_mass_over_bins_matches_torchmtlr(targets, value):
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert -log_mass(scores, torch.tensor(targets).bool()).sum().item() == pytest.approx(value, abs=1e-4)


def test_hazard_loss_is_the_likelihood_of_its_own_survival_curve():
    task = build_task(PrognosisTask(loss="hazard", bins=4, horizon_days=30))
    logits = torch.randn(3, 4, dtype=torch.float64)
    batch = batch_of([20.0, 20.0, 0.0], [1, 0, 1])
    survival = task.survival_curve(logits)
    likelihood = torch.stack([survival[0, 1] - survival[0, 2], survival[1, 2], 1 - survival[2, 0]])
    assert task.loss(logits, batch).item() == pytest.approx(-likelihood.log().mean().item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["equidistant", "quantiles"])
def test_discretisation_matches_pycox(golden, kind):
    c = golden["inputs"]["C"]
    durations, events = torch.tensor(c["durations"]), torch.tensor(c["events"])
    cuts = torch.tensor(golden[f"C_deephit_{kind}_cuts"], dtype=torch.float64)
    index, event = discretise(durations, events, cuts)
    assert index.tolist() == golden[f"C_deephit_{kind}_idx"]
    assert event.tolist() == golden[f"C_deephit_{kind}_event"]


def test_an_event_beyond_the_horizon_is_censored_there():
    cuts = torch.linspace(0, 100, 5, dtype=torch.float64)
    index, event = discretise(torch.tensor([100.0, 101.0, 500.0]), torch.tensor([1, 1, 0]), cuts)
    assert index.tolist() == [4, 4, 4]
    assert event.tolist() == [1, 0, 0]


def test_survival_curves_match_pycox(golden, b):
    task = build_task(PrognosisTask(bins=4))
    wanted = np.ravel(golden["B_deephit_surv"]).tolist()
    assert task.survival_curve(b[0]).flatten().tolist() == pytest.approx(wanted, abs=FLOAT32)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_risk_is_the_share_of_the_horizon_lost(loss):
    task = build_task(PrognosisTask(loss=loss, bins=6))
    never, at_once = torch.full((1, 6), -60.0), torch.tensor([[300.0, 0, 0, 0, 0, 0]])
    risk = task.risk(torch.cat([never, at_once, torch.randn(4, 6)]))
    assert risk[:2].tolist() == pytest.approx([0, 1], abs=1e-12)
    assert (risk[2:] > 0).all() and (risk[2:] < 1).all()


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("event", [[0, 0, 0], [1, 0, 1]])
def test_loss_and_gradient_are_finite_even_for_extreme_logits(loss, event):
    task = build_task(PrognosisTask(loss=loss, bins=5, horizon_days=100))
    logits = torch.tensor([[60.0, -60, 60, -60, 60], [-60, 60, -60, 60, -60], [0, 0, 0, 0, 0]], requires_grad=True)
    value = task.loss(logits, batch_of([10.0, 50.0, 100.0], event))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()


def test_ranking_without_a_comparable_pair_is_zero_with_a_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    value = rank_loss(logits, torch.tensor([1, 2, 3]), torch.zeros(3), sigma=0.1)
    value.backward()
    assert value.item() == 0.0
    assert logits.grad.abs().sum() == 0


def test_sums_of_two_centers_form_no_pairs_across_them():
    task = build_task(PrognosisTask(bins=4, horizon_days=40))
    first = task.observe(torch.randn(5, 4), batch_of([3.0, 9, 17, 25, 31], [1, 0, 1, 1, 0]))
    second = task.observe(torch.randn(4, 4), batch_of([5.0, 6, 20, 22], [0, 1, 1, 0]))
    merged = merge_sums([task.sums(first), task.sums(second)])
    pairs = float(task.sums(first)["comparable"] + task.sums(second)["comparable"])
    assert merged["comparable"] == pairs < task.sums(first + second)["comparable"]
    assert task.metrics(merged) == pooled_metrics(task, first + second, ["a"] * 5 + ["b"] * 4)
    assert {name: np.shape(value) for name, value in merged.items()} == task.sum_shapes


def test_an_empty_center_adds_nothing():
    task = build_task(PrognosisTask(bins=4))
    assert all(float(value) == 0 for value in task.sums([]).values())
    assert task.metrics(task.sums([])) == {"c_index": None, "antolini": None}
    assert task.intervals(task.sums([])) == {"c_index": None}
    assert all((value == 0).all() for value in task.curve_sums([], 0.5).values())


def test_curve_sums_are_kaplan_meier_on_the_grid():
    task = build_task(PrognosisTask(bins=4, horizon_days=30))  # grid 0, 10, 20, 30
    observations = [
        {"time": np.array(t), "event": np.array(e), "risk": np.array(r), "survival": np.full(4, 1 - r)}
        for t, e, r in [(4.0, 1, 0.9), (15, 0, 0.9), (18, 1, 0.9), (99, 1, 0.9), (5, 0, 0.1), (30, 1, 0.1)]
    ]
    sums = task.curve_sums(observations, threshold=0.5)
    assert sums["km_at_risk"].tolist() == [[2, 1, 1, 1], [4, 4, 2, 1]]
    assert sums["km_events"].tolist() == [[0, 0, 0, 1], [0, 1, 1, 0]]
    assert kaplan_meier(sums["km_at_risk"], sums["km_events"])[1].tolist() == [1, 0.75, 0.375, 0.375]
    assert {name: np.shape(value) for name, value in sums.items()} == task.curve_shapes


def test_an_unknown_loss_is_refused_with_the_options():
    with pytest.raises(
        UnknownName, match=r"Unknown prognosis loss 'deephitt'. Known: cox, deephit, hazard, mtlr. Did you"
    ):
        build_task(PrognosisTask(loss="deephitt"))


# ------------------------------------------------------------------------------------------------------------- Cox


def cox_cohort(n=30, seed=0, *, tied=True):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    time = generator.exponential(np.exp(-x))
    time = np.ceil(time * 4) if tied else time
    return x, time, (generator.random(n) < 0.7).astype(float), generator.integers(0, 3, n)


@pytest.mark.parametrize("stratified", [False, True])
def test_cox_likelihood_is_lifelines_with_efron_ties(stratified):
    x, time, event, stratum = cox_cohort()
    frame = pd.DataFrame({"x": x, "t": time, "e": event} | ({"s": stratum} if stratified else {}))
    fitted = CoxPHFitter().fit(frame, "t", "e", strata=["s"] if stratified else None)
    risk = torch.tensor(fitted.params_["x"] * x, requires_grad=True)
    strata = torch.tensor(stratum) if stratified else None
    value = cox_nll(risk, torch.tensor(time), torch.tensor(event), strata)
    assert value.item() == pytest.approx(-fitted.log_likelihood_, abs=1e-6)
    value.backward()
    assert float((risk.grad * torch.tensor(x)).sum()) == pytest.approx(0, abs=1e-3)  # it is the maximum


def test_cox_over_strata_is_the_sum_of_centers():
    x, time, event, stratum = (torch.tensor(v) for v in cox_cohort())
    parts = [cox_nll(x[stratum == s], time[stratum == s], event[stratum == s]) for s in (0, 1, 2)]
    assert cox_nll(x, time, event, stratum).item() == pytest.approx(sum(p.item() for p in parts), abs=1e-9)


@pytest.mark.parametrize("days", [[5.0], [5.0, 9.0]])
def test_cox_without_a_pair_is_zero_with_a_gradient(days):
    task = build_task(PrognosisTask(loss="cox"))
    output = torch.randn(len(days), 1, requires_grad=True)
    value = task.loss(output, batch_of(days, [0] * len(days)))
    value.backward()
    assert value.item() == 0 and output.grad.abs().sum() == 0
    alone = task.loss(output[:1], batch_of(days[:1], [1]))  # a relapse that nobody outlives
    assert alone.item() == pytest.approx(0, abs=1e-6)


def test_cox_risk_orders_and_its_curve_comes_from_summed_breslow_steps():
    x, time, event, _ = cox_cohort(400, tied=False)
    spec = PrognosisTask(loss="cox", bins=41, horizon_days=4.0)
    output, batch = torch.tensor(x)[:, None], batch_of(time.tolist(), event.tolist())
    first = build_task(spec)
    parts = [first.sums(first.observe(output[rows], _rows(batch, rows))) for rows in (slice(0, 150), slice(150, 400))]
    known = first.calibrate(merge_sums(parts))
    task = build_task(spec, known)
    assert (task.risk(output).argsort() == torch.tensor(x).argsort()).all()
    survival = task.survival_curve(torch.zeros(1, 1))[0].numpy()
    exact = np.exp(-0.7 * task.cuts.numpy())  # a rate of 1 at x = 0, of which seven in ten are relapses
    assert np.abs(survival - exact)[:20].max() < 0.06
    assert task.metrics(merge_sums(parts))["nll"] > 0
    assert {name: np.shape(value) for name, value in parts[0].items()} == task.sum_shapes


def _rows(batch, rows):
    return Batch({}, {}, {name: value[rows] for name, value in batch.target.items()})


# ---------------------------------------------------------------------------------------------- curves and medians


@pytest.mark.parametrize("loss", ["cox", *sorted(LOSSES)])
def test_every_head_gives_a_falling_curve_a_risk_and_a_median(loss):
    task = build_task(PrognosisTask(loss=loss, bins=6, horizon_days=60))
    output = torch.randn(7, task.outputs)
    curve = task.survival_curve(output)
    assert curve.shape == (7, 6) and (curve.diff(dim=1) <= 1e-12).all()
    assert ((curve >= -1e-9) & (curve <= 1)).all() and task.risk(output).shape == (7,)
    median = task.median_time(output)
    assert ((median >= 0) & ((median <= 60) | median.isinf())).all()
    assert (median.isinf() == (curve[:, -1] > 0.5)).all()


def test_the_median_lies_on_the_line_between_grid_times():
    task = build_task(PrognosisTask(loss="hazard", bins=3, horizon_days=20))  # grid 0, 10, 20
    hazards = torch.tensor([[0.0, 0.4, 0.5], [0.0, 0.1, 0.1], [0.6, 0.0, 0.0]]).clamp(1e-9, 1)
    assert task.median_time(torch.logit(hazards)).tolist() == pytest.approx([10 + 10 / 3, float("inf"), 0], abs=1e-4)


def test_the_censoring_of_training_cases_weighs_the_test_scores():
    label = build_task(PrognosisTask(bins=3, horizon_days=20))
    known = label.label_sums({"days": torch.tensor([3.0, 9, 15]), "event": torch.tensor([0.0, 1, 0])})
    assert known["censoring_at_risk"].tolist() == [3, 2, 1] and known["censoring_censored"].tolist() == [0, 1, 1]
    assert {name: value.shape for name, value in known.items()} == label.label_shapes
    observed = label.observe(torch.randn(4, 3), batch_of([2.0, 8, 12, 18], [1, 1, 0, 1]))
    plain, weighed = (build_task(label.spec, k).curve_sums(observed, 0.0) for k in (None, known))
    assert weighed["uno_comparable"] == pytest.approx(4 * plain["uno_comparable"])  # two relapses in (0, 10], G = 1/2
    assert weighed["reliability_observed"].sum() == plain["reliability_observed"].sum() == 2  # seen with G(10-) = 1


def test_missing_curves_and_risks_do_not_break_the_sums():
    task = build_task(PrognosisTask(bins=4, horizon_days=40))
    observed = task.observe(torch.full((3, 4), torch.nan), batch_of([3.0, 9, 17], [1, 0, 1]))
    sums = task.sums(observed) | task.curve_sums(observed, 0.5)
    assert sums["tied"] == sums["comparable"] == 2 and task.metrics(sums)["c_index"] == 0.5
    assert all(np.isfinite(value).all() for value in sums.values())
