"""Declared columns: any numeric or categorical column of a table as inputs of a Cox model, whatever it means.

A categorical column becomes one column for each of its declared levels and one for all others, so that every center
builds the same matrix without looking at anybody else's cells. A level that few patients of a center have joins the
others there. An empty cell is unknown, as everywhere (`common.exact.columns`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.errors import DataError
from common.exact.columns import Layout, Rows
from simulations.survival.cohort import Cohort

OTHER = "other"
Levels = Mapping[str, Sequence[str]]  # column -> its levels; of a number none
Cells = Mapping[str, Mapping[str, str]]  # column -> patient -> the cell as it is written


def with_columns(cohort: Cohort, cells: Cells, levels: Levels, *, fewest: int) -> Cohort:
    """The cohort with declared columns behind its own.

    Args:
        fewest: patients of a center who must have a level for it to stand by itself there.
    """
    own = layout_of(levels, with_flags=cohort.layout.with_flags)
    rows = {}
    for center, before in cohort.rows.items():
        patients = [case.patient for case in cohort.cases[center]]
        columns = [_encoded(name, [cells[name].get(who, "") for who in patients], levels[name], fewest)
                   for name in levels]  # fmt: skip
        values = np.concatenate([before.values, *(found for found, _ in columns)], axis=1)
        flags = np.concatenate([before.flags, *(known[:, None] for _, known in columns)], axis=1)
        rows[center] = Rows(values, flags, before.target)
    return replace(cohort, rows=rows, layout=cohort.layout.concat(own))


def layout_of(levels: Levels, *, with_flags: bool) -> Layout:
    """The columns that the declaration makes; a flag says whether the cell is filled."""
    named = {name: [f"{name}={level}" for level in (*of, OTHER)] if of else [name] for name, of in levels.items()}
    values = tuple(value for of in named.values() for value in of)
    flag_of = tuple(place for place, of in enumerate(named.values()) for _ in of)
    return Layout(values, tuple(levels), flag_of, with_flags=with_flags)


def _encoded(name: str, cells: Sequence[str], levels: Sequence[str], fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, columns) and whether each cell is filled (n,)."""
    known = np.array([bool(cell) for cell in cells], np.float64)
    if not levels:
        return np.array([[_number(name, cell)] for cell in cells], np.float64).reshape(len(cells), 1), known
    counts = Counter(cells)
    columns = [level for level in levels if counts[level] >= fewest]
    place = {level: list(levels).index(level) for level in columns}
    values = np.zeros((len(cells), len(levels) + 1))
    for row, cell in enumerate(cells):
        if cell:
            values[row, place.get(cell, len(levels))] = 1
    return values, known


def _number(name: str, cell: str) -> float:
    try:
        value = float(cell) if cell else 0.0
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"Column '{name}' is declared as a number and has cells that are none; declare its levels instead, as in "
            f"study.columns={{{name}: [low, high]}}."
        )
    return value
