"""Cells: which of a task's sums count patients by cell, so that a center can tell none of a few.

A task declares them beside its shapes. A center deals neighbouring bins into cells of exactly its minimum
(`common.tasks.dealing`), or leaves a table out (zeros, which add nothing), wherever a cell, or what is left of a total,
is of fewer patients than its minimum but not of none. With a minimum of 1 every sum leaves as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.protocol.messages import Sums
from common.tasks.dealing import ENOUGH, FIRST, LAST, MIDDLE, dealt_counts, dealt_table

CASES = "cases"  # in ``of``: how many cases the sums are over, where they do not say it themselves
NEAR = 1e-9  # sums of weights are rounded


@dataclass(frozen=True)
class Histogram:
    """Counts by neighbouring bins along the last axis, told in cells of exactly the minimum.

    Counts of weighted patients cannot be dealt: their bins are merged until every cell is of none or of enough.

    Args:
        counts: numbers of patients, each name by itself.
        alike: other sums by the same bins, which go along with them.
        within: counts that are a part of the first of ``counts``: they, and what is left of it, are dealt apart.
        of: the number of cases that the bins are dealt from: what stands in no bin is a cell, too. Empty: nobody knows.
        last: a cell stands where it was enough, else at its middle patient.
        edge: -1 or 1: it stands at its first, or its last, patient. A quantile of the same counts told both ways lies
            between the two.
        whole: rows are shares of the same cases: one that must be left out takes the others with it.
        varies: how many are counted is a model's doing: those beyond a multiple of the minimum are told nowhere.
        each: how often one patient counts in a row at most; a cell is of as many times the minimum, so of enough.
    """

    counts: tuple[str, ...]
    alike: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    of: str = CASES
    last: bool = False
    edge: int = 0
    whole: bool = False
    varies: bool = False
    each: int = 1


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
        dealt: rows, of the last axis, are told in multiples of the minimum: what a model makes of the same patients.
    """

    counts: tuple[str, ...]
    axes: int
    alike: tuple[str, ...] = ()
    of: str = CASES
    partly: bool = False
    dealt: bool = False


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
    are counted, they are told as the mean of all, and else as that of the next lower multiple of the minimum: which
    cases are counted is a model's doing.

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


def _histogram(rule: Histogram, sums: Sums, total: float | None, minimum: int) -> Sums:
    names, minimum = (*rule.counts, *rule.within, *rule.alike), minimum * rule.each
    bins = np.shape(sums[rule.counts[0]])[-1]
    tables = {name: np.asarray(sums[name], np.float64).reshape(-1, bins) for name in names}
    apart = [tables[name] for name in rule.counts]
    if rule.within:  # who is a part and who is not are told apart
        parts = [tables[name] for name in rule.within]
        apart = [*parts, *(apart[0] - part for part in parts)]
    counted = sum(tables[name].sum(axis=1) for name in rule.counts)
    rest = few(total - counted, minimum) if total is not None else np.zeros(len(apart[0]), bool)
    whole = all(np.array_equal(cells, np.rint(cells)) for cells in apart)
    told = _dealt(rule, tables, apart, rest, minimum) if whole else _waiting(rule, tables, apart, rest, minimum)
    return {n: v.reshape(np.shape(sums[n])) for n, v in told.items() if not np.array_equal(v, tables[n])}


def _dealt(
    rule: Histogram, tables: Mapping[str, np.ndarray], apart: list[np.ndarray], rest: np.ndarray, minimum: int
) -> dict[str, np.ndarray]:
    """Patients in cells of exactly the minimum, each kind by itself; what is alike goes along by its mean in a bin."""
    gone = rest | np.any([few(cells.sum(axis=1), minimum) for cells in apart], axis=0)
    gone |= rule.whole and bool(gone.any())
    at = {-1: FIRST, 0: ENOUGH if rule.last else MIDDLE, 1: LAST}[rule.edge]
    found = [_dealt_rows(cells, gone, at=at, left_over=not rule.varies, minimum=minimum) for cells in apart]
    if not rule.within:
        told = dict(zip(rule.counts, found, strict=True))
    else:
        told = {rule.counts[0]: found[0] + found[len(rule.within)], **dict(zip(rule.within, found, strict=False))}
    before, after = tables[rule.counts[0]], told[rule.counts[0]]
    mean = {name: np.divide(tables[name], before, out=np.zeros_like(before), where=before > 0) for name in rule.alike}
    return told | {name: value * after for name, value in mean.items()}


def _dealt_rows(cells: np.ndarray, gone: np.ndarray, *, at: str, left_over: bool, minimum: int) -> np.ndarray:
    told = np.zeros_like(cells)
    for row in np.flatnonzero(~gone):
        told[row] = dealt_counts(cells[row], minimum, at=at, left_over=left_over)
    return told


def _waiting(
    rule: Histogram, tables: Mapping[str, np.ndarray], apart: list[np.ndarray], rest: np.ndarray, minimum: int
) -> dict[str, np.ndarray]:
    """Weighted patients: bins wait for the next ones until each cell is of none or of enough."""
    cells = [tables[name] for name in rule.counts] + (apart if rule.within else [])
    groups = [
        None if untold else spans(np.stack([one[row] for one in cells]), minimum) for row, untold in enumerate(rest)
    ]
    if rule.whole and None in groups:
        groups = [None] * len(groups)
    return {
        name: np.stack([_merged(row, told, rule) for row, told in zip(table, groups, strict=True)])
        for name, table in tables.items()
    }


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
        if rule.dealt:
            own = np.shape(sums[name])
            told = dealt_table(np.where(kept[..., None], rows, 0.0).reshape(-1, own[-1]), minimum).reshape(own)
            found |= {} if np.array_equal(told, sums[name]) else {name: told}
    if rule.partly or kept.all():
        return found
    return {name: _left(np.asarray(found.get(name, sums[name]), np.float64), kept) for name in _named(rule)}


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
    everyone = (count >= total - NEAR) if total is not None else np.zeros(count.shape, bool)
    as_many = np.where(everyone, count, np.floor(count / minimum + NEAR) * minimum)
    as_many = np.where(all_but_few, total or 0.0, np.where(gone, 0.0, as_many))
    if np.array_equal(as_many, count):
        return {}
    share = as_many / np.where(count > 0, count, 1.0)
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
