"""Kaplan-Meier curves and the log-rank test from summed counts per grid time: no patient's own time is ever needed.

Counts are grouped: ``at_risk[g][k]`` patients of group g enter the interval that ends at grid time k, ``events[g][k]``
of them relapse there, and whoever leaves otherwise is censored at that time. lifelines does the statistics, on weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import LedgerError


@dataclass
class Curve:
    """A step function: survival[k] holds from days[k] on; days[0] is 0 and survival[0] is 1.

    ``at_risk[k]`` patients enter day ``days[k]`` (at day 0: everyone); low and high are the 95 % interval.
    """

    days: list[float]
    survival: list[float]
    low: list[float]
    high: list[float]
    at_risk: list[int]
    events: int


@dataclass
class RiskGroups:
    """The low- and the high-risk group, and the log-rank p-value between them (None where one group is empty)."""

    low: Curve
    high: Curve
    p: float | None
    threshold: float | None


def risk_groups(counts: Mapping[str, Any]) -> RiskGroups:
    """Curves and test from ``{"grid_days", "at_risk": [low, high], "events": [low, high], "threshold"}``.

    A grid one longer than the counts gives the intervals' edges; its first entry is then the start.

    Raises:
        LedgerError: when the counts cannot be a survival table (suppressed, or more patients later than earlier).
    """
    at_risk, events = counts["at_risk"], counts["events"]
    days = list(counts["grid_days"])[-len(at_risk[0]) :]
    low, high = (curve(days, n, d) for n, d in zip(at_risk, events, strict=True))
    groups = [_weighted(days, n, d) for n, d in zip(at_risk, events, strict=True)]
    return RiskGroups(low, high, _log_rank(*groups), counts.get("threshold"))


def curve(days: Sequence[float], at_risk: Sequence[int], events: Sequence[int]) -> Curve:
    """One group's curve from its counts per grid time.

    Raises:
        LedgerError: when the counts cannot be a survival table.
    """
    return _curve(days, at_risk, _weighted(days, at_risk, events))


def _weighted(days: Sequence[float], at_risk: Sequence[int], events: Sequence[int]) -> list[tuple[float, int, int]]:
    """(day, relapsed or not, how many patients) for every count above zero."""
    if any(value is None for value in [*at_risk, *events]):
        raise LedgerError("The survival counts hold suppressed cells, so no curve can be drawn from them.")
    after = [*at_risk[1:], 0]
    censored = [n - d - rest for n, d, rest in zip(at_risk, events, after, strict=True)]
    if any(c < 0 for c in censored) or any(d < 0 for d in events):
        raise LedgerError("The survival counts do not add up: more patients are at risk later than remained.")
    rows = [(day, 1, d) for day, d in zip(days, events, strict=True)]
    rows += [(day, 0, c) for day, c in zip(days, censored, strict=True)]
    return [(float(day), event, int(many)) for day, event, many in rows if many]


def _curve(days: Sequence[float], at_risk: Sequence[int], group: list[tuple[float, int, int]]) -> Curve:
    from lifelines import KaplanMeierFitter  # heavy: pandas and scipy

    everyone = int(at_risk[0])
    grid = [0.0, *(float(day) for day in days if day > 0)]
    entering = [everyone, *(int(n) for day, n in zip(days, at_risk, strict=True) if day > 0)]
    if not group:
        return Curve([0.0], [1.0], [1.0], [1.0], [0], 0)
    fit = KaplanMeierFitter().fit([g[0] for g in group], [g[1] for g in group], weights=[g[2] for g in group])
    survival = fit.survival_function_at_times(grid).tolist()
    bounds = fit.confidence_interval_.reindex(grid, method="ffill").fillna(1.0)
    events = sum(many for _, event, many in group if event)
    return Curve(grid, survival, bounds.iloc[:, 0].tolist(), bounds.iloc[:, 1].tolist(), entering, events)


def _log_rank(low: list[tuple[float, int, int]], high: list[tuple[float, int, int]]) -> float | None:
    from lifelines.statistics import logrank_test

    if not low or not high or not any(event for _, event, _ in low + high):
        return None
    (a, ea, wa), (b, eb, wb) = zip(*low, strict=True), zip(*high, strict=True)
    return float(logrank_test(a, b, ea, eb, weights_A=wa, weights_B=wb).p_value)
