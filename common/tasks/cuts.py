"""Survival grids from sums: event times of all centers as one coarse histogram, and cuts at its quantiles.

A center says how many events fell into each of a fixed number of bins up to the configured horizon; bins of fewer than
its minimum wait for the next ones (`HISTOGRAM`). Its own longest follow-up appears nowhere, because times beyond the
horizon count nowhere and the last cut is the horizon itself.
"""

from __future__ import annotations

import numpy as np

from common.errors import ConfigError
from common.tasks.cells import Histogram

EVENTS = "grid.events"
BINS = 120
GRID = "grid"  # the order's subset that asks for the histogram
HISTOGRAM = Histogram((EVENTS,), last=True)


def event_histogram(days: np.ndarray, event: np.ndarray, *, horizon: float) -> np.ndarray:
    """(BINS,) counts of events by time, bins of equal width from 0 to the horizon."""
    days = np.asarray(days, np.float64)
    chosen = days[(np.asarray(event) > 0) & (days <= horizon)]
    counts, _ = np.histogram(chosen, bins=BINS, range=(0.0, horizon))
    return counts.astype(np.float64)


def quantile_cuts(histogram: np.ndarray, *, horizon: float, cuts: int) -> list[float]:
    """Rising cuts (K,): 0, then upper edges of bins at equal shares of the events, and the horizon.

    Raises:
        ConfigError: when the events do not fill that many different bins.
    """
    total = float(histogram.sum())
    shares = np.arange(1, cuts - 1) / (cuts - 1)
    reached = np.searchsorted(np.cumsum(histogram), shares * total - 1e-9) if total else np.zeros(cuts - 2, dtype=int)
    edges = np.linspace(0.0, horizon, BINS + 1)
    found = [0.0, *(float(edges[place + 1]) for place in reached), float(horizon)]
    if total == 0 or (np.diff(found) <= 0).any():
        raise ConfigError(
            f"{total:.0f} events within {horizon:g} days do not make {cuts} different quantile cuts; use fewer "
            "task.bins, or task.grid=equal."
        )
    return found
