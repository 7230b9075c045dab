"""Held-out predictions as pictures: Kaplan-Meier by predicted risk, and predicted against observed survival."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from common.tasks.prognosis import group_counts
from server.report.charts import MONTH, Point, reliability_chart, survival_chart
from server.report.survival import Curve, RiskGroups, curve, risk_groups
from server.report.words import p_value
from simulations.studies.page import Picture
from simulations.survival.options import CoxStudy
from simulations.survival.out_of_fold import OutOfFold

LEAST_PATIENTS, LEAST_EVENTS = 40, 10  # below, a group of a picture would be a handful of patients
EVENTS_FOR_FIFTHS = 50  # ten a group; thirds below
COUNTED = "Events count at the end of their month, censorings at its start."


@dataclass
class Drawn:
    """The pictures of one set of inputs, why one is missing, and the figures they show."""

    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)


def risk_pictures(name: str, arm: str, found: OutOfFold, study: CoxStudy) -> Drawn:
    """Both pictures of one arm's held-out predictions, or a sentence for each that cannot be drawn."""
    drawn = Drawn()
    events = int(found.event.sum())
    if len(found) < LEAST_PATIENTS or events < LEAST_EVENTS:
        drawn.notes.append(
            f"{name}: no survival curves by predicted risk and no calibration picture, as {len(found)} patients with "
            f"{events} events are too few (at least {LEAST_PATIENTS} and {LEAST_EVENTS})."
        )
        return drawn
    whom = (
        f"{len(found)} patients, each predicted once by a model that never saw them ({arm}, {study.folds} folds, the "
        "first repeat)."
    )
    _add_curves(drawn, name, found, whom)
    _add_calibration(drawn, name, found, whom, study.horizon_months)
    return drawn


def months_of(time: np.ndarray) -> torch.Tensor:
    """The grid: whole months from 0 until everyone has left, in days."""
    return torch.arange(math.ceil(time.max() / MONTH) + 1, dtype=torch.float64) * MONTH


# ------------------------------------------------------------------------------------------------ by predicted risk


def _add_curves(drawn: Drawn, name: str, found: OutOfFold, whom: str) -> None:
    groups = curves_by_risk(found)
    if groups is None:
        drawn.notes.append(f"{name}: no survival curves by predicted risk, as all patients are in one risk group.")
        return
    told = "; ".join(f"{n}: {c.at_risk[0]} patients, {c.events} events" for n, c in _named(groups))
    test = "not defined" if groups.p is None else p_value(groups.p)
    title = f"Survival by predicted risk, {name}"
    drawn.pictures.append(
        Picture(
            title,
            f"Kaplan-Meier curves with 95 % bands. {whom} High: above the median risk of the fold's training patients, "
            f"low: the others; no test patient draws the line. {told[0].upper()}{told[1:]}. Log-rank test, low against "
            f"high, centers together: {test}. {COUNTED}",
            svg=survival_chart(groups.low, groups.high, label=title, upward="share without the event"),
        )
    )
    counted = {n: {"patients": c.at_risk[0], "events": c.events} for n, c in _named(groups)}
    drawn.figures["risk_groups"] = counted | {"log_rank_p": groups.p}


def curves_by_risk(found: OutOfFold) -> RiskGroups | None:
    """The low- and the high-risk group on a grid of months; None where everyone is in one of them."""
    if found.high.all() or not found.high.any():
        return None
    grid = months_of(found.time)
    at_risk, events = group_counts(found.time, found.event, found.high.astype(np.int64), grid, groups=2)
    return risk_groups({"grid_days": grid.tolist(), "at_risk": at_risk.tolist(), "events": events.tolist()})


def _named(groups: RiskGroups) -> list[tuple[str, Curve]]:
    return [("low", groups.low), ("high", groups.high)]


# ------------------------------------------------------------------------------------------------------ calibration


def _add_calibration(drawn: Drawn, name: str, found: OutOfFold, whom: str, months: int) -> None:
    points = calibration_points(found, months)
    if points is None:
        drawn.notes.append(
            f"{name}: no calibration picture, as not every group of predicted survival has patients followed for "
            f"{months} months (study.horizon_months)."
        )
        return
    title = f"Predicted and observed survival at {months} months, {name}"
    parts = "fifths" if len(points) == 5 else "thirds"
    drawn.pictures.append(
        Picture(
            title,
            f"{whom} Patients in {parts} of the predicted survival ({', '.join(f'{p.cases:.0f}' for p in points)} "
            "patients); predicted: the mean of the Cox model with Breslow's baseline of the fold's training patients, "
            "one for all centers although the model is stratified by center; observed: Kaplan-Meier with its 95 % "
            f"interval. On the dotted line, what was predicted is what happened. {COUNTED}",
            svg=reliability_chart(
                points,
                label=title,
                across="predicted share without the event",
                upward="observed share",
                lowest=min(low for p in points for low in (p.low, p.predicted) if low is not None),
            ),
        )
    )
    drawn.figures["calibration"] = {"months": months, "groups": [vars(point) for point in points]}


def calibration_points(found: OutOfFold, months: int) -> list[Point] | None:
    """Groups of equal size by predicted survival; None where one is not followed until then, or all are alike."""
    count = 5 if found.event.sum() >= EVENTS_FOR_FIFTHS else 3
    group = np.searchsorted(np.quantile(found.survival, np.arange(1, count) / count), found.survival)
    grid = months_of(found.time)
    at_risk, events = group_counts(found.time, found.event, group, grid, groups=count)
    if months >= len(grid) or (at_risk[:, months] == 0).any():
        return None
    points = []
    for number in range(count):
        observed = curve(grid.tolist(), at_risk[number].tolist(), events[number].tolist())
        predicted = float(found.survival[group == number].mean())
        cases = int(observed.at_risk[0])
        points.append(Point(predicted, observed.survival[months], cases, observed.low[months], observed.high[months]))
    return points
