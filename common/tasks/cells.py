"""Cells: which of a task's sums count patients by cell, so that a center can tell none of a few.

A task declares them beside its shapes. A center merges neighbouring bins, or leaves a table out (zeros, which add
nothing), wherever a cell, or what is left of a total, is of fewer patients than its minimum but not of none. With a
minimum of 1 every sum leaves as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.protocol.messages import Sums

CASES = "cases"  # in ``of``: how many cases the sums are over, where they do not say it themselves
NEAR = 1e-9  # sums of weights are rounded


@dataclass(frozen=True)
class Histogram:
    """Counts by neighbouring bins along the last axis; bins are merged until every cell is of none or of enough.

    Args:
        counts: names whose bins merge together, so that a merged bin holds none or enough of each.
        alike: other sums by the same bins, added up alike.
        within: counts that are a part of the first of ``counts``: what is left of it is a cell, too.
        of: the number of cases that the bins are dealt from: what stands in no bin is a cell, too. Empty: nobody knows.
        last: a merged bin stands where the last of its bins was, else in the middle of those that held anybody.
        edge: -1 or 1: it stands at the first, or the last, of the bins that held anybody. A quantile of the same counts
            told both ways lies between the two.
        whole: rows are shares of the same cases: one that must be left out takes the others with it.
    """

    counts: tuple[str, ...]
    alike: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    of: str = CASES
    last: bool = False
    edge: int = 0
    whole: bool = False


@dataclass(frozen=True)
class Table:
    """Counts by cells that are no neighbours: told whole, or left out with the sums that are over the same cells.

    Args:
        counts: names of the counts.
        axes: how many of the last axes make one table; with 0 every number stands alone.
        alike: sums that are left out with it: over the same leading axes.
        of: the number of cases that a table is dealt from, or empty.
        partly: leave out cells instead of the table: small ones, and then the smallest others until enough are left
            out together.
    """

    counts: tuple[str, ...]
    axes: int
    alike: tuple[str, ...] = ()
    of: str = CASES
    partly: bool = False


@dataclass(frozen=True)
class RiskSets:
    """Numbers at risk and of those gone by grid time (last axis): who is gone and who leaves otherwise are cells.

    They are left out, all rows together, where a cell is of a few; a task makes such times common before it counts
    (`Task.together`).
    """

    at_risk: str
    gone: str
    of: str = CASES


@dataclass(frozen=True)
class Mean:
    """A number of cases by entry, and sums over those: a mean. The sums of a few are left out; where all but a few
    are counted, they are told as the mean of all.

    Args:
        count: the name of the number.
        sums: what the mean is of.
        left_out: further sums that those cases alone make up.
    """

    count: str
    sums: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    of: str = CASES


Cells = Histogram | Table | RiskSets | Mean


def few(counts: np.ndarray | float, minimum: int) -> np.ndarray:
    """Where a count is of somebody, but of fewer than the minimum."""
    counts = np.asarray(counts, np.float64)
    return (counts > NEAR) & (counts < minimum - NEAR)


def guarded(sums: Sums, cells: Sequence[Cells], *, cases: float, minimum: int) -> tuple[Sums, bool]:
    """The sums with no cell of a few, and whether that changed any.

    Args:
        cases: how many patients they are over.
    """
    if minimum <= 1:
        return sums, False
    found = dict(sums)
    for rule in cells:
        if all(name in sums for name in _named(rule)):
            found |= _APPLIED[type(rule)](rule, found, _total(rule.of, sums, cases), minimum)
    return found, any(found[name] is not sums[name] for name in sums)


def spans(cells: np.ndarray, minimum: int) -> list[tuple[int, int, int]] | None:
    """Neighbouring bins that are told together, as (first and last bin with anybody, the bin where it was enough).

    Bins wait until each of the cells that they hold is of none or of enough; what waits at the end joins the bins
    before. None where not even all together are enough.

    Args:
        cells: (kinds, bins) counts.
    """
    found: list[tuple[int, int, int]] = []
    sizes: list[list[float]] = []
    least, nobody = minimum - NEAR, [0.0] * len(cells)
    first, last, waiting = -1, -1, nobody
    for place, own in enumerate(cells.T.tolist()):  # plain numbers: a few dozen bins are too little for arrays
        if max(own) <= NEAR:
            continue
        first, last, waiting = (
            (place if first < 0 else first),
            place,
            [a + b for a, b in zip(waiting, own, strict=True)],
        )
        if not any(NEAR < count < least for count in waiting):
            found.append((first, last, last))
            sizes.append(waiting)
            first, waiting = -1, nobody
    while first >= 0 and found:
        (first, _, at), waiting = found.pop(), [a + b for a, b in zip(waiting, sizes.pop(), strict=True)]
        if not any(NEAR < count < least for count in waiting):
            return [*found, (first, last, at)]
    return None if first >= 0 else found


def together_in_time(index: np.ndarray, kind: np.ndarray, *, minimum: int) -> np.ndarray | None:
    """Grid places (n,), moved so that at each of them none or enough of a kind leave; None where a kind is of a few.

    Args:
        index: (n,) places on a grid, from 0.
        kind: (n,) how each leaves: by an event, censored. Kinds move apart from each other.
    """
    moved = np.array(index)
    for which in np.unique(kind):
        own = kind == which
        groups = spans(np.bincount(index[own])[None].astype(np.float64), minimum)
        if groups is None:
            return None
        for first, last, at in groups:
            moved[own & (index >= first) & (index <= last)] = at
    return moved


def _histogram(rule: Histogram, sums: Sums, total: float | None, minimum: int) -> Sums:
    names = (*rule.counts, *rule.within, *rule.alike)
    bins = np.shape(sums[rule.counts[0]])[-1]
    tables = {name: np.asarray(sums[name], np.float64).reshape(-1, bins) for name in names}
    merged = {name: table.copy() for name, table in tables.items()}
    groups: list[list[tuple[int, int, int]] | None] = []
    for row in range(len(tables[rule.counts[0]])):
        cells = [tables[name][row] for name in (*rule.counts, *rule.within)]
        cells += [tables[rule.counts[0]][row] - tables[name][row] for name in rule.within]
        counted = sum(float(tables[name][row].sum()) for name in rule.counts)
        rest = total is not None and bool(few(total - counted, minimum))
        groups.append(None if rest else spans(np.stack(cells), minimum))
    if rule.whole and None in groups:
        groups = [None] * len(groups)
    for row, told in enumerate(groups):
        for name in names:
            merged[name][row] = _merged(tables[name][row], told, rule)
    return {n: v.reshape(np.shape(sums[n])) for n, v in merged.items() if not np.array_equal(v, tables[n])}


def _merged(values: np.ndarray, told: list[tuple[int, int, int]] | None, rule: Histogram) -> np.ndarray:
    found = np.zeros_like(values)
    for first, end, at in told or []:
        place = {-1: first, 0: at if rule.last else (first + end) // 2, 1: end}[rule.edge]
        found[place] = values[first : end + 1].sum()
    return found


def _table(rule: Table, sums: Sums, total: float | None, minimum: int) -> Sums:
    first = np.asarray(sums[rule.counts[0]], np.float64)
    lead = first.shape[: first.ndim - rule.axes]
    kept = np.ones(lead, bool)
    found: Sums = {}
    for name in rule.counts:
        rows = np.asarray(sums[name], np.float64).reshape(*lead, -1)
        rest = few(total - rows.sum(axis=-1), minimum) if total is not None else np.zeros(lead, bool)
        if rule.partly:
            told = np.stack([_partly(row, minimum) for row in rows.reshape(-1, rows.shape[-1])]).reshape(rows.shape)
            told = np.where(rest[..., None], 0.0, told)
            found |= {} if np.array_equal(told, rows) else {name: told.reshape(np.shape(sums[name]))}
        kept &= ~(few(rows, minimum).any(axis=-1) | rest)
    if rule.partly or kept.all():
        return found
    return {name: _left(np.asarray(sums[name], np.float64), kept) for name in (*rule.counts, *rule.alike)}


def _left(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.where(kept.reshape(kept.shape + (1,) * (values.ndim - kept.ndim)), values, 0.0)


def _partly(counts: np.ndarray, minimum: int) -> np.ndarray:
    """Counts without the small ones and, so that a total does not tell them, without the smallest others."""
    gone = few(counts, minimum)
    for place in np.argsort(counts, kind="stable"):
        if not few(counts[gone].sum(), minimum):
            break
        gone[place] |= counts[place] > 0
    return np.where(gone, 0.0, counts)


def _risk_sets(rule: RiskSets, sums: Sums, total: float | None, minimum: int) -> Sums:
    at_risk, gone = (np.asarray(sums[name], np.float64) for name in (rule.at_risk, rule.gone))
    after = np.concatenate([at_risk[..., 1:], np.zeros_like(at_risk[..., :1])], axis=-1)
    cells = [gone, at_risk - gone - after, at_risk[..., :1]]
    rest = few(total - at_risk[..., 0].sum(), minimum) if total is not None else np.zeros((), bool)
    if not rest.any() and not any(few(cell, minimum).any() for cell in cells):
        return {}
    return {rule.at_risk: np.zeros_like(at_risk), rule.gone: np.zeros_like(gone)}


def _mean(rule: Mean, sums: Sums, total: float | None, minimum: int) -> Sums:
    count = np.asarray(sums[rule.count], np.float64)
    gone = few(count, minimum)
    all_but_few = few(total - count, minimum) & ~gone if total is not None else np.zeros(count.shape, bool)
    if not (gone | all_but_few).any():
        return {}
    share = np.where(all_but_few, (total or 0.0) / np.where(count > 0, count, 1.0), np.where(gone, 0.0, 1.0))
    told = {name: np.asarray(sums[name], np.float64) * share for name in (rule.count, *rule.sums)}
    return told | {name: np.where(gone, 0.0, np.asarray(sums[name], np.float64)) for name in rule.left_out}


def _total(of: str, sums: Mapping[str, np.ndarray], cases: float) -> float | None:
    return None if not of else float(np.asarray(sums[of]).sum()) if of in sums else cases


def _named(rule: Cells) -> tuple[str, ...]:
    if isinstance(rule, RiskSets):
        return rule.at_risk, rule.gone
    if isinstance(rule, Mean):
        return (rule.count, *rule.sums, *rule.left_out)
    return (*rule.counts, *rule.alike, *(rule.within if isinstance(rule, Histogram) else ()))


_APPLIED: dict[type, Callable[..., Sums]] = {
    Histogram: _histogram, Table: _table, RiskSets: _risk_sets, Mean: _mean,
}  # fmt: skip
