"""Dealing: patients by the order of a value in cells of exactly the minimum, so that two answers differ by whole cells.

Bins that are merged until each holds enough are safe one answer at a time. The same patients scored at another
threshold, or by a model that differs in one patient, then differ by one patient in a bin. Cells of exactly the minimum,
in the order of the value, cannot: how many patients lie at or below a value is told in whole multiples of the minimum,
whatever made the value, and what is left over of all stays with the last cell. A cell stands at its middle patient, or
nearer to the others where fewer than the minimum would lie on one side.

Source: rounding to a base and microaggregation of one variable (Domingo-Ferrer and Mateo-Sanz 2002).
"""

from __future__ import annotations

import numpy as np

MIDDLE, ENOUGH, FIRST, LAST = "middle", "enough", "first", "last"


def dealt_places(values: np.ndarray, minimum: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The cell (n,) of every patient, from 0 in the order of values (n,), and the patient (cells,) where each stands.

    None where there are patients, but fewer than the minimum. Equal values keep the order that they come in.
    """
    count = len(values)
    if 0 < count < minimum:
        return None
    order = np.argsort(values, kind="stable")
    cell = np.empty(count, np.int64)
    cell[order] = np.minimum(np.arange(count) // minimum, max(count // minimum - 1, 0))
    return cell, order[_ranks(count, minimum, MIDDLE)]


def dealt_values(values: np.ndarray, minimum: int) -> np.ndarray | None:
    """Values (n,) of which every one is that of a whole cell; None as in `dealt_places`."""
    found = dealt_places(values, minimum)
    return None if found is None else values[found[1]][found[0]]


def dealt_times(time: np.ndarray, kind: np.ndarray, *, minimum: int) -> np.ndarray | None:
    """Times (n,) of which every one is that of a whole cell of patients of a kind; None where a kind is of a few.

    The cells do not depend on any grid: on whichever one they are counted, whole cells leave. They are dealt from the
    last time on, so that who is left over of all leaves first, and is counted whatever the horizon.

    Args:
        kind: (n,) how each leaves: by an event, censored. Kinds are dealt apart from each other.
    """
    told = np.array(time)
    for which in np.unique(kind):
        own = kind == which
        found = dealt_values(-time[own], minimum)
        if found is None:
            return None
        told[own] = -found
    return told


def dealt_counts(counts: np.ndarray, minimum: int, *, at: str = MIDDLE, left_over: bool = True) -> np.ndarray:
    """Whole numbers of patients (bins,) in cells of exactly the minimum; zeros where all are fewer.

    Args:
        at: which of its patients' bins a cell stands in: the middle one's, the one's that made it enough, the first or
            the last one's.
        left_over: whether those beyond a multiple of the minimum stay with the last cell; else they are told nowhere,
            for where their number says something about a model.
    """
    total = round(float(counts.sum()))
    ranks = _ranks(total, minimum, at)
    sizes = np.full(len(ranks), float(minimum))
    if left_over and len(ranks):
        sizes[-1] += total - minimum * len(ranks)
    bins = np.searchsorted(np.cumsum(counts), ranks, side="right")
    return np.bincount(bins, weights=sizes, minlength=len(counts))


def dealt_table(rows: np.ndarray, minimum: int) -> np.ndarray:
    """Cells (n, cells) of none or enough, by rows in multiples of the minimum (largest remainder); what is left over of
    a row stands in its largest cell."""
    told = rows // minimum * minimum
    for row, own in zip(told, rows, strict=True):
        lacking = int((own.sum() - row.sum()) // minimum)
        row[np.argsort(-(own - row), kind="stable")[:lacking]] += minimum
        row[int(row.argmax())] += own.sum() - row.sum()
    return told


def _ranks(count: int, minimum: int, at: str) -> np.ndarray:
    """The rank, from 0, of the patient where each cell stands."""
    start = np.arange(count // minimum) * minimum
    stop = start + minimum
    if len(stop):
        stop[-1] = count
    if at == FIRST:
        return start
    if at == LAST:
        return stop - 1
    if at == ENOUGH:
        return start + minimum - 1
    lowest, highest = min(minimum - 1, (count - 1) // 2), max(count - minimum, count // 2)
    return np.clip((start + stop - 1) // 2, lowest, highest)
