"""Clinical tables of every edition and hospital, read through declared mappings into canonical fields and outcomes.

`client.data.hecktor.mapping` says what a column means; this file reads the rows, checks them and says everything that is wrong,
one sentence each. Sentences count patients; their IDs go to the logger ``fedgraft.center``, which stays on site.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from client.data.hecktor.mapping import (
    EVENT,
    Outcome,
    TableMapping,
    load_mapping,
    mapping_for,
    plain,
    read_cell,
    read_time,
    shipped_mappings,
)
from common.errors import DataError
from common.data.findings import FINDINGS
from common.data.records import SCHEMA, Value

log = logging.getLogger("fedgraft.center")

CENTER_ALIASES = {"CHGJ": "HGJ", "CHMR": "HMR"}  # the prefixes of 2020 and 2021
_IDENTIFIER = re.compile(r"^([A-Za-z]+)[-_ ]?(\d{2,5})$")
UNIT_RATIO = 12.0  # medians of two centers further apart than this are not one unit: a month has 30 days
UNIT_CASES = 3  # a median of fewer times says nothing
TIME_LIMIT, UNIT_ALL = 150.0, 10  # ten or more times and none above 150: hardly days


def patient_id(text: str) -> tuple[str, str] | None:
    """('CHUM-001', 'CHUM') of 'CHUM-001', 'CHUM_001' or 'CHUM001'; None where the text is no patient's ID."""
    match = _IDENTIFIER.match(text.strip())
    if match is None:
        return None
    prefix = match[1].upper()
    center = CENTER_ALIASES.get(prefix, prefix)
    return f"{center}-{match[2]}", center


@dataclass
class Rows:
    """What tables say: canonical fields and outcomes by patient, centers by patient, and what is wrong.

    ``notes`` are worth knowing and stop nothing.
    """

    fields: dict[str, dict[str, Value]] = field(default_factory=dict)
    days: dict[str, dict[str, float]] = field(default_factory=dict)
    events: dict[str, dict[str, int]] = field(default_factory=dict)
    centers: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def outcome(self, patient: str, name: str) -> tuple[float, int] | None:
        """(days, event), or None unless both are recorded."""
        days, event = self.days.get(patient, {}).get(name), self.events.get(patient, {}).get(name)
        return None if days is None or event is None else (days, event)


def read_tables(root: Path, *, center: str | None = None, mapping: Path | str | None = None) -> Rows:
    """Every clinical and endpoint table below ``root``, merged by patient; only ``center``'s rows if one is named.

    The same patient may stand in several tables (the tasks of 2025). Where two tables give different values the
    first in path order counts, except that contradicting outcomes are a problem.

    Args:
        mapping: the hospital's own, tried before the shipped ones.
    """
    rows = Rows()
    own = (load_mapping(mapping),) if mapping else ()
    for path in sorted(root.rglob("*.csv")):
        frame = _read(path, rows.problems)
        if frame is None:
            continue
        columns = set(frame.columns)
        kind = next((m for m in own if {m.patient, *m.marks} <= columns), None) or mapping_for(
            columns, shipped_mappings()
        )
        if kind is not None:
            _merge(rows, _own_rows(frame, kind, path, center, rows), kind, path)
    _check_outcomes(rows, own + shipped_mappings())
    return rows


def read_table(path: Path, mapping: TableMapping) -> Rows:
    """One table of patients of any centers. Raises DataError where it cannot be read at all."""
    rows = Rows()
    if not path.is_file():
        raise DataError(f"There is no table '{path}'; set data.table to a comma-separated file.")
    frame = _read(path, rows.problems)
    if frame is None:
        raise DataError(rows.problems)
    rows.problems += _absent_columns(frame, mapping, path)
    if not rows.problems:
        _merge(rows, _own_rows(frame, mapping, path, None, rows), mapping, path)
        _check_outcomes(rows, (mapping,))
        _note_gaps(rows, mapping)
    return rows


def _absent_columns(frame: pd.DataFrame, mapping: TableMapping, path: Path) -> list[str]:
    absent = {column: name for column, name in mapping.columns.items() if column not in frame.columns}
    if not absent:
        return []
    named = ", ".join(f"'{column}' ({name})" for column, name in absent.items())
    there = ", ".join(f"'{column}'" for column in frame.columns[:30])
    return [f"Mapping '{mapping.name}' names columns that '{path.name}' lacks: {named}; its columns are {there}."]


def _read(path: Path, problems: list[str]) -> pd.DataFrame | None:
    try:
        frame = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' own errors and UnicodeDecodeError are ValueErrors
        problems.append(
            f"The table '{path.name}' cannot be read as comma-separated UTF-8 text ({type(error).__name__}); "
            "export it again or remove it."
        )
        return None
    frame.columns = pd.Index([plain(str(name)) for name in frame.columns])
    double = sorted(set(frame.columns[frame.columns.duplicated()]))
    if double:
        problems.append(
            f"The table '{path.name}' has several columns called {', '.join(map(repr, double))} (parentheses do not "
            "count); rename or remove all but one."
        )
        return frame.loc[:, ~frame.columns.duplicated()]
    return frame


def _own_rows(frame: pd.DataFrame, kind: TableMapping, path: Path, center: str | None, rows: Rows) -> pd.DataFrame:
    """The rows of one center with columns 'patient' and 'center'; duplicates and nameless rows become problems."""
    names = frame[kind.patient].fillna("").map(lambda name: re.sub(r"(__CT)?(\.nii(\.gz)?)?$", "", name).strip())
    where = frame[kind.center].fillna("").str.strip() if kind.center else None
    known = [_named(name, None if where is None else where.iloc[i]) for i, name in enumerate(names)]
    named = frame.assign(patient=[k and k[0] for k in known], center=[k and k[1] for k in known])
    nameless = sum(k is None for k in known)
    if nameless:
        wanted = "an ID and a center" if kind.center else "an ID of the form CENTER-NUMBER (as in CHUM-001)"
        rows.problems.append(f"{nameless} rows of '{path.name}' lack {wanted}; correct or remove them.")
    named = named[[k is not None for k in known]]
    own = named if center is None else named[named["center"] == center]
    repeated = own["patient"].duplicated()
    if repeated.any():
        log.warning("table=%s duplicate patients: %s", path.name, sorted(set(own["patient"][repeated])))
        rows.problems.append(
            f"{own['patient'][repeated].nunique()} patients stand more than once in '{path.name}'; keep one row each."
        )
    return own[~repeated]


def _named(name: str, center: str | None) -> tuple[str, str] | None:
    """(patient, center) of a row, or None where either is missing."""
    parsed = patient_id(name)
    if center is None:
        return parsed
    return ((parsed[0] if parsed else f"{center}/{name}"), center) if name and center else None


def _merge(rows: Rows, own: pd.DataFrame, kind: TableMapping, path: Path) -> None:
    for patient, center in zip(own["patient"], own["center"], strict=True):
        rows.fields.setdefault(patient, {})
        rows.centers[patient] = center
    for name, source in kind.variables.items():
        variable = SCHEMA[name]

        def read(patient: str, cell: str, variable=variable, source=source) -> Value | None:
            return read_cell(variable, cell, source.values)

        wanted = variable.expected + (", or name it under values: in the mapping" if variable.levels else "")
        _merge_column(rows, own, source.column, rows.fields, name, read, wanted, path)
    for name, outcome in kind.outcomes.items():

        def event(patient: str, cell: str, outcome=outcome) -> int | None:
            value = read_cell(EVENT, cell, outcome.event.values)
            return None if value is None else int(float(value))

        def days(patient: str, cell: str, outcome=outcome) -> float:
            return outcome.days(read_time(cell), rows.centers[patient])

        _merge_column(rows, own, outcome.event.column, rows.events, name, event, EVENT.expected, path, outcome=True)
        _merge_column(rows, own, outcome.time, rows.days, name, days, "a time from 0 upwards", path, outcome=True)


def _merge_column(
    rows: Rows,
    own: pd.DataFrame,
    column: str,
    into: dict[str, dict],
    name: str,
    read: Callable[[str, str], Value | None],
    wanted: str,
    path: Path,
    *,
    outcome: bool = False,
) -> None:
    """Read one column of every row into ``into``; cells that cannot be read become one sentence."""
    if column not in own.columns:
        return
    wrong, contradicting = 0, 0
    for patient, cell in own[["patient", column]].dropna().itertuples(index=False):
        try:
            value = read(patient, cell)
        except ValueError:
            log.warning("table=%s case=%s %s cannot be read: %r", path.name, patient, column, cell)
            wrong += 1
            continue
        if value is not None and value == value:
            contradicting += into.setdefault(patient, {}).setdefault(name, value) != value
    if wrong:
        rows.problems.append(
            f"{wrong} values of '{column}' in '{path.name}' cannot be used; write {wanted}, or leave the cell empty "
            "where it is unknown."
        )
    if contradicting and outcome:
        rows.problems.append(
            f"{contradicting} patients have another '{column}' in '{path.name}' than in an earlier table; make the "
            "tables agree."
        )
    elif contradicting:
        log.warning("table=%s %s differs from an earlier table for %d cases", path.name, name, contradicting)


# -------------------------------------------------------------------------------------------------- outcomes and gaps


def _check_outcomes(rows: Rows, mappings: tuple[TableMapping, ...]) -> None:
    names = sorted({n for e in rows.events.values() for n in e} | {n for d in rows.days.values() for n in d})
    declared = {name: outcome for mapping in reversed(mappings) for name, outcome in mapping.outcomes.items()}
    for name in names:
        _check_pairs(rows, name)
        if not declared[name].confirmed:
            rows.problems += _odd_units(rows, name, declared[name])


def _check_pairs(rows: Rows, name: str) -> None:
    timeless = [p for p, e in rows.events.items() if e.get(name) == 1 and name not in rows.days.get(p, {})]
    if timeless:
        log.warning("event without a time: %s", timeless)
        rows.problems.append(
            f"{len(timeless)} patients have an event without a time ({name}); enter the time of the event or leave "
            "both empty."
        )
    open_ended = [p for p, e in rows.events.items() if e.get(name) == 0 and name not in rows.days.get(p, {})]
    unsaid = [p for p, d in rows.days.items() if name in d and name not in rows.events.get(p, {})]
    for count, what in ((len(open_ended), "no event and no time"), (len(unsaid), "a time, but not whether it ended in an event")):
        if count:
            rows.notes.append(f"{count} patients have {what} ({name}); they are left out where this outcome is studied.")


def _odd_units(rows: Rows, name: str, outcome: Outcome) -> list[str]:
    """A question where times look like several units, or like months instead of days."""
    by_center: dict[str, list[float]] = {}
    for patient, days in rows.days.items():
        if name in days:
            by_center.setdefault(rows.centers[patient], []).append(days[name])
    medians = {c: float(np.median(t)) for c, t in by_center.items() if len(t) >= UNIT_CASES and np.median(t) > 0}
    everything = [t for times in by_center.values() for t in times]
    fix = "set unit: in the mapping (one unit, or one per center), or confirmed: true if the times are right"
    if medians and max(medians.values()) >= UNIT_RATIO * min(medians.values()):
        low, high = min(medians, key=lambda c: medians[c]), max(medians, key=lambda c: medians[c])
        return [
            f"Times of '{name}' look like several units: the median is {medians[low]:.0f} days at {low} and "
            f"{medians[high]:.0f} at {high}; {fix}."
        ]
    if len(everything) >= UNIT_ALL and max(everything) <= TIME_LIMIT:
        return [f"No time of '{name}' is longer than {max(everything):.0f} days: are they months? Then {fix}."]
    return []


def _note_gaps(rows: Rows, mapping: TableMapping) -> None:
    """Centers that recorded nothing at all, and variables that nobody recorded."""
    for center in sorted(set(rows.centers.values())):
        patients = [p for p, c in rows.centers.items() if c == center]
        if mapping.variables and not any(rows.fields[p] for p in patients):
            rows.notes.append(f"{center} recorded no variable of any patient: all of them count as average.")
    unused = [name for name in mapping.variables if not any(name in f for f in rows.fields.values())]
    if unused and rows.fields:
        rows.notes.append(f"Nobody recorded {', '.join(unused)}: their weight stays zero.")


# ------------------------------------------------------------------------------------------------ the chest cohort


def read_chest(root: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str], list[str]]:
    """Findings (0, 1, or -1 for unknown, in the order of FINDINGS) and report texts by patient, and the problems."""
    rows = Rows()
    labels = _chest_frame(root / "chest_labels.csv", rows)
    reports = _chest_frame(root / "chest_reports.csv", rows)
    absent = [name for name in FINDINGS if labels is not None and plain(name) not in labels.columns]
    if absent:
        rows.problems.append(f"'chest_labels.csv' lacks the columns {', '.join(absent)}; add them, empty if unknown.")
    findings = {} if labels is None or absent else _findings(labels, rows.problems)
    texts = {} if reports is None else _texts(reports)
    return findings, texts, rows.problems


def _chest_frame(path: Path, rows: Rows) -> pd.DataFrame | None:
    frame = _read(path, rows.problems) if path.is_file() else None
    if frame is None:
        return None
    if "volumename" not in frame.columns:
        rows.problems.append(f"'{path.name}' has no column 'VolumeName'; add it with names such as CHEST-0001.")
        return None
    return _own_rows(frame, TableMapping("chest", "volumename"), path, None, rows).set_index("patient")


def _findings(labels: pd.DataFrame, problems: list[str]) -> dict[str, tuple[int, ...]]:
    columns = labels[[plain(name) for name in FINDINGS]]
    numbers = columns.apply(pd.to_numeric, errors="coerce")
    wrong = int(((numbers.isna() & columns.notna()) | (numbers.notna() & ~numbers.isin([0, 1]))).sum().sum())
    if wrong:
        problems.append(f"{wrong} cells of 'chest_labels.csv' are neither 0, 1 nor empty; correct them.")
    known = numbers.fillna(-1).astype(int)
    return {str(patient): tuple(int(v) for v in row) for patient, row in zip(known.index, known.values, strict=True)}


def _texts(reports: pd.DataFrame) -> dict[str, str]:
    parts = reports.reindex(columns=["findings_en", "impressions_en"]).fillna("")
    joined = {
        str(patient): " ".join(" ".join(row).split()) for patient, row in zip(parts.index, parts.values, strict=True)
    }
    return {patient: text for patient, text in joined.items() if text}
