"""Paired: test patients' records of every arm, and differences with intervals from resampling patients."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from common.config.step import Step
from common.data.subgroups import levels_of
from common.metrics import (
    Estimate,
    Resampled,
    bootstrap_additive,
    bootstrap_concordance,
    bootstrap_median,
    bootstrap_weights,
)
from common.metrics.names import margin
from common.tasks import build_task, pooled_metrics
from server.evaluation.matrix import POOLED
from server.report.report import Comparison
from simulations.comparison.beside import beside, pairs_of_heads
from simulations.comparison.comparing import Comparing, records_name
from simulations.comparison.names import ALONE, CENTRALIZED, FEDERATED, LEFT_OUT, LOCAL
from simulations.comparison.patients import record_of

SMALLEST = 5  # patients; below, no interval is claimed
HD95 = "hd95"  # of a structure the median over patients; then the mean over structures
DISTANCES = (HD95, "surface_dice", "lesion_f1")  # of cases that were scored where they were drawn
METRICS = {
    "segmentation": ("dsc_agg", "dice", *DISTANCES),
    "prognosis": ("c_index",),
    "classification": ("auroc",),
    "grounding": ("ap", "ap50"),
}


@dataclass(frozen=True)
class Patient:
    """One test patient of one fold under one arm: a record per seed, and the subgroups that the patient is of."""

    center: str
    patient: str
    fold: int
    records: tuple[dict[str, np.ndarray], ...]
    levels: tuple[str, ...] = ()


def patients_of(comparing: Comparing, arm: str, step: str, *, mode: str = "") -> list[Patient]:
    """Every test patient of an arm and step in one mode, folds joined, in the order of center and ID."""
    found: dict[tuple[str, str, int], list[dict[str, np.ndarray]]] = {}
    levels: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for cell in comparing.cells:
        folders = (comparing.folder / "records" / cell.name).glob(f"{arm}-*" if arm in (*ALONE, LEFT_OUT) else arm)
        for path in sorted(folder / records_name(step, mode) for folder in folders):
            for row in json.loads(path.read_text()) if path.exists() else []:
                key = (row["center"], row["patient"], cell.fold)
                found.setdefault(key, []).append(record_of(row))
                levels[key] = tuple(row.get("levels", ()))
    return [Patient(*key, tuple(records), levels[key]) for key, records in sorted(found.items())]


def value_of_patients(step: Step, patients: Sequence[Patient], metric: str) -> float | None:
    """A metric over patients, averaged over seeds; pairs of patients are formed within a center and fold only."""
    if metric == HD95:
        return resampled(step, patients, metric, np.empty((0, len(patients)), np.int64)).value
    task = build_task(step.task)
    values = []
    for seed in range(len(patients[0].records) if patients else 0):
        records = [patient.records[seed] for patient in patients]
        labels = [(patient.center, patient.fold) for patient in patients]
        values.append(pooled_metrics(task, records, labels).get(metric))
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined and len(defined) == len(values) else None


def resampled(step: Step, patients: Sequence[Patient], metric: str, weights: np.ndarray) -> Resampled:
    """The metric, averaged over seeds, and its value (draws,) under each row of weights (draws, n)."""
    if not patients:
        return Resampled(None, np.full(len(weights), np.nan))
    seeds = range(len(patients[0].records))
    if metric == "c_index":
        time, event = (np.array([p.records[0][name] for p in patients], np.float64) for name in ("time", "event"))
        risk = np.array([[p.records[seed]["risk"] for p in patients] for seed in seeds], np.float64)
        groups = [(p.center, p.fold) for p in patients]  # pairs of patients are formed within a center and fold only
        return bootstrap_concordance(time, event, risk, groups=groups, weights=weights)
    if metric == HD95:
        return _mean_of([_hd95([p.records[seed] for p in patients], weights) for seed in seeds])
    task = build_task(step.task)
    found = []
    for seed in seeds:
        each = [task.sums([p.records[seed]]) for p in patients]
        sums = {name: np.stack([one[name] for one in each]) for name in each[0]}
        found.append(bootstrap_additive(sums, lambda drawn: task.metrics(drawn).get(metric), weights=weights))
    return _mean_of(found)


def _mean_of(seeds: Sequence[Resampled]) -> Resampled:
    """Over seeds; without a value where one of them has none."""
    values = [found.value for found in seeds if found.value is not None]
    value = sum(values) / len(seeds) if len(values) == len(seeds) else None
    return Resampled(value, np.mean([found.drawn for found in seeds], axis=0))


def _hd95(records: Sequence[dict[str, np.ndarray]], weights: np.ndarray) -> Resampled:
    """The mean over structures of the median distance in mm over the patients that have the structure drawn or
    predicted (a missed one is the image's diagonal away); without a value where no distance was measured, as in cases
    scored on the training grid."""
    if any(HD95 not in record for record in records):
        return Resampled(None, np.full(len(weights), np.nan))
    distance = np.stack([record[HD95] for record in records])  # (n, S)
    is_there = np.stack([record["predicted"] + record["truth"] for record in records]) > 0
    found = [bootstrap_median(*column, weights=weights) for column in zip(distance.T, is_there.T, strict=True)]
    known = [one for one in found if one.value is not None]
    if not known:
        return Resampled(None, np.full(len(weights), np.nan))
    drawn = np.stack([one.drawn for one in known])  # (structures, draws)
    some = np.isfinite(drawn)
    means = np.divide(np.where(some, drawn, 0).sum(axis=0), some.sum(axis=0), where=some.any(axis=0),
                      out=np.full(drawn.shape[1], np.nan))  # fmt: skip
    return Resampled(float(np.mean([one.value for one in known])), means)


def difference_of(
    step: Step, a: Sequence[Patient], b: Sequence[Patient] | None, metric: str, *, draws: int, of_b: Step | None = None
) -> Estimate:
    """metric(a) - metric(b) over the same patients in the same order, or metric(a) alone where ``b`` is None.

    The percentile interval is over patients drawn anew within centers; under `SMALLEST` patients there is none.

    Args:
        of_b: the step of b's records, where it is another.
    """
    weights = bootstrap_weights(strata_of(a), draws=draws)
    found = resampled(step, a, metric, weights)
    if b is not None:
        found = found.minus(resampled(of_b or step, b, metric, weights))
    return Estimate(found.value, n=len(a)) if len(a) < SMALLEST else found.estimate(n=len(a))


def strata_of(patients: Sequence[Patient]) -> list[str]:
    """Within which patients are drawn: each one's center. Centers of fewer than `SMALLEST` patients are drawn from
    together: the only patient of a stratum would be in every draw, and the interval would be too narrow."""
    sizes = Counter(p.center for p in patients)
    return [p.center if sizes[p.center] >= SMALLEST else "" for p in patients]


def compare_arms(
    comparing: Comparing, a: tuple[str, str], b: tuple[str, str], metric: str, *, center: str | None = None
) -> Comparison | None:
    """The paired difference a - b of two (arm, step) pairs over the patients that both scored."""
    step = comparing.run.steps[a[1]]
    sides = [{(p.center, p.patient, p.fold): p for p in patients_of(comparing, *side)} for side in (a, b)]
    keys = sorted(k for k in sides[0].keys() & sides[1].keys() if center in (None, k[0]))
    if not keys:
        return None
    left, right = ([side[key] for key in keys] for side in sides)
    draws = comparing.run.compare.draws if center is None else max(200, comparing.run.compare.draws // 4)
    where = "" if center is None else f" at {center}"
    names = [(arm if step_name == a[1] else f"{arm} {step_name}") + where for arm, step_name in (a, b)]
    found = compare_patients(step, (names[0], left), (names[1], right), metric, draws=draws)
    if found is None or b[0] not in (CENTRALIZED, LOCAL):
        return found
    return replace(found, note=_note(found.gain, metric))


def compare_patients(
    step: Step, a: tuple[str, Sequence[Patient]], b: tuple[str, Sequence[Patient]], metric: str, *, draws: int
) -> Comparison | None:
    """The paired difference a - b of two named arms over the same patients; None where a side has no value."""
    found = difference_of(step, a[1], b[1], metric, draws=draws)
    return None if found.value is None else Comparison(step.name, metric, a[0], b[0], found)


def _note(gain: Estimate, metric: str) -> str:
    within = margin(metric)
    if gain.low is None:
        return f"fewer than {SMALLEST} patients: no interval"
    if within is None:
        return ""
    return f"not inferior at margin {within}" if gain.low > -within else f"non-inferiority at margin {within} not shown"


def comparisons_of(comparing: Comparing) -> list[Comparison]:
    """Every paired difference that the comparison reports, whatever its sign."""
    found: list[Comparison | None] = []
    run = comparing.run
    for control in run.compare.pairs:
        for metric in METRICS[run.steps[control[0]].task.kind]:
            found.append(compare_arms(comparing, (FEDERATED, control[0]), (FEDERATED, control[1]), metric))
    sides = [(FEDERATED, other) for other in beside(run.compare)] + pairs_of_heads(run.compare)
    for step, (a, b) in product(_trained(comparing), sides):
        for metric in METRICS[step.task.kind]:
            found.append(compare_arms(comparing, (a, step.name), (b, step.name), metric))
    return [comparison for comparison in found if comparison is not None]


def harmed_centers(comparing: Comparing) -> list[Comparison]:
    """Federated against local-only, center by center, in each step's primary metric."""
    found = []
    for step in _trained(comparing):
        metric = build_task(step.task).primary
        for center in sorted({p.center for p in patients_of(comparing, LOCAL, step.name)}):
            found.append(compare_arms(comparing, (FEDERATED, step.name), (LOCAL, step.name), metric, center=center))
    return [
        replace(c, note="harmed" if c.gain.is_below_zero else "" if c.difference.interval else c.note)
        for c in found
        if c is not None
    ]


def shares_of_centralized(comparing: Comparing) -> list[str]:
    """What federated keeps of centralized in each step's primary metric: overall and at the worst center."""
    said = []
    for step in _trained(comparing):
        metric = build_task(step.task).primary
        both = [
            {p.center: [q for q in patients if q.center == p.center] for p in patients} | {"": patients}
            for patients in (patients_of(comparing, arm, step.name) for arm in (FEDERATED, CENTRALIZED))
        ]
        shares: dict[str, float] = {}
        for center in sorted(both[0].keys() & both[1].keys()):
            if len(both[0][center]) < SMALLEST:
                continue
            values = [value_of_patients(step, side[center], metric) for side in both]
            if values[0] is not None and values[1]:
                shares[center] = values[0] / values[1]
        if "" in shares:
            whole = shares.pop("")
            worst = min(shares, key=lambda center: shares[center], default=None)
            at_worst = f", at the worst center {shares[worst]:.0%} ({worst})" if worst else ""
            said.append(f"{step.name}: {whole:.0%} of centralized {metric}{at_worst}")
    return said


def arm_rows(comparing: Comparing, arm: str) -> list[dict[str, Any]]:
    """Score rows of an arm from its patients' records: pooled with an interval, and per center."""
    rows = []
    for step in _trained(comparing, with_controls=arm == FEDERATED):
        patients = patients_of(comparing, arm, step.name)
        for metric in metrics_of(step, patients):
            rows += score_rows(arm, step, patients, metric, draws=comparing.run.compare.draws)
    return rows


def subgroup_rows(comparing: Comparing, arm: str) -> list[dict[str, Any]]:
    """Score rows of an arm by each level of its steps' subgroups, over all centers, with intervals over patients; a
    level of fewer than the run's minimum cell has no value."""
    rows: list[dict[str, Any]] = []
    for step in _trained(comparing, with_controls=arm == FEDERATED):
        patients = patients_of(comparing, arm, step.name) if step.subgroups else []
        known = {"arm": arm, "step": step.name, "task": step.name, "mode": "+".join(step.modalities), "center": POOLED}
        for level in levels_of(step) if patients else []:
            own = [patient for patient in patients if level in patient.levels]
            for metric in build_task(step.task).by_subgroup:
                few = len(own) < max(comparing.run.data.minimum_cell, 1)
                found = (
                    Estimate(None, n=0)
                    if few
                    else difference_of(step, own, None, metric, draws=comparing.run.compare.draws)
                )
                ends = {"value": found.value, "low": found.low, "high": found.high, "n": None if few else len(own)}
                rows.append({**known, "subgroup": level, "metric": metric, **ends})
    return rows


def metrics_of(step: Step, patients: Sequence[Patient]) -> list[str]:
    """Those of `METRICS` that the patients' records can tell: no distances of cases scored on the training grid."""
    is_measured = any(HD95 in record for patient in patients for record in patient.records)
    return [name for name in METRICS[step.task.kind] if is_measured or name not in DISTANCES]


def score_rows(
    arm: str, step: Step, patients: Sequence[Patient], metric: str, *, draws: int, center_draws: int = 0
) -> list[dict[str, Any]]:
    """A row for all centers together, with an interval, and one per center, with an interval where draws are given."""
    rows = []
    for center in [POOLED, *sorted({p.center for p in patients})]:
        chosen = [p for p in patients if center in (POOLED, p.center)]
        found = difference_of(step, chosen, None, metric, draws=draws if center == POOLED else center_draws)
        rows.append(
            {
                "arm": arm,
                "step": step.name,
                "task": step.name,
                "metric": metric,
                "center": center,
                "mode": "+".join(step.modalities),
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "n": len(chosen),
            }
        )
    return rows


def _trained(comparing: Comparing, *, with_controls: bool = False) -> list[Step]:
    run = comparing.run
    return [s for s in run.steps.values() if s.rounds > 0 and (with_controls or s.name not in run.controls)]
