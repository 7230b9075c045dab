"""Clinical tables of every edition and hospital, read through declared mappings into canonical fields and outcomes.

`client.data.hecktor.mapping` says what a column means; this file reads the rows, checks them and says everything that
is wrong, one sentence each. A cell that cannot be understood is "not recorded" and counted. An outcome or an ID that
cannot be costs its patient the outcome, or the row; where many cannot be, or a whole code is unknown, it stops the
center, for then the column means something else than is thought. Sentences count patients; their IDs go to the logger
``fedgraft.center``, which stays on site.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from client.data.folders import files_below
from client.data.hecktor.centers import one_spelling
from client.data.hecktor.mapping import (
    EVENT,
    Outcome,
    TableMapping,
    load_mapping,
    mapping_for,
    plain,
    read_cell,
    read_time,
    says_unknown,
    shipped_mappings,
)
from client.data.hecktor.reading import OTHER, TEXT, read_rows
from common.data.findings import FINDINGS
from common.data.records import SCHEMA, Value
from common.errors import DataError, UnknownName

log = logging.getLogger("fedgraft.center")

CENTER_ALIASES = {"CHGJ": "HGJ", "CHMR": "HMR"}  # the prefixes of 2020 and 2021
_IDENTIFIER = re.compile(r"^([A-Za-z]+)[-_ ]?(\d{2,5})$")
UNIT_RATIO = 12.0  # medians of two centers further apart than this are not one unit: a month has 30 days
UNIT_CASES = 3  # a median of fewer times says nothing
TIME_LIMIT, UNIT_ALL = 150.0, 10  # ten or more times and none above 150: hardly days
LONGEST_FOLLOW_UP = 60 * 365.25  # days: nobody was followed for longer
FEW = 0.1  # of the patients (and always one): as many may have an outcome or an ID that cannot be told
REPORT_COLUMNS = ("findings_en", "impressions_en")
# Tables that others read, or nobody.
NOT_CLINICAL = ("prepared.csv", "chest_labels.csv", "chest_reports.csv", "centers.csv", "partitioning_1.csv")

KNOWN = frozenset(  # columns of HECKTOR's and the shipped cohorts' tables that are left unread on purpose
    {
        *"centerid center death os lrr lrr_days dm dm_days qc_flag".split(),  # noqa: SIM905
        "task 1",
        "task 2",
        "tnm group",
        "tnm edition",
        "medical center",
        "center id",
    }
)


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

    Args:
        problems: what stops a center: IDs and outcomes of more than a few patients that cannot be told.
        odd: what costs a cell, a row, a patient's outcome or a table, and is left out; it stops nothing.
        refused: outcomes by patient that cannot be told, from whichever table.
        untold: by outcome, the problems that only it has: they stop the steps that need it, and no others.
        notes: worth knowing.
        read: names of the tables that a mapping fitted.
        cells: by column that was asked for beside the mapping's, each patient's cell as it is written.
    """

    fields: dict[str, dict[str, Value]] = field(default_factory=dict)
    days: dict[str, dict[str, float]] = field(default_factory=dict)
    events: dict[str, dict[str, int]] = field(default_factory=dict)
    centers: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    refused: dict[str, set[str]] = field(default_factory=dict)
    untold: dict[str, list[str]] = field(default_factory=dict)
    cells: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def stopping(self) -> list[str]:
        """The problems that stop a center whatever the step needs."""
        outcomes = {sentence for sentences in self.untold.values() for sentence in sentences}
        return [problem for problem in self.problems if problem not in outcomes]

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
    columns: dict[str, set[str]] = {}  # by kind of table: what all of its tables have
    for path in files_below(root):
        frame = _table(path, rows)
        if frame is None:
            continue
        there = set(frame.columns)
        kind = next((m for m in own if {m.patient, *m.marks} <= there), None) or mapping_for(there, shipped_mappings())
        if kind is None:
            if path.name not in NOT_CLINICAL:
                rows.odd.append(_unread(path, frame))
            continue
        rows.read.append(path.name)
        columns.setdefault(kind.name, set()).update(there)
        _merge(rows, _own_rows(_single(frame, kind, path, rows), kind, path, center, rows), kind, path)
    for kind in (*own, *(m for m in shipped_mappings() if m.name in columns)):
        rows.odd += _nowhere(kind, columns.get(kind.name), is_own=kind in own)
    _check_outcomes(rows, own + shipped_mappings())
    for sentence in rows.odd:
        _warn(root, sentence)
    return rows


@lru_cache(maxsize=1024)
def _warn(root: Path, sentence: str) -> None:
    """Once a process: a simulation reads the same tables for each center and step."""
    log.warning("tables: %s", sentence)


def _table(path: Path, rows: Rows) -> pd.DataFrame | None:
    """A file below the root as a table; None for everything else, spreadsheets with a word."""
    kind = path.suffix.lower()
    if kind in OTHER and not path.name.startswith(("~$", ".")):
        rows.odd.append(f"'{path.name}' is a spreadsheet and is not read; save the table as a comma-separated .csv.")
    return _read(path, rows) if kind in TEXT else None


def _unread(path: Path, frame: pd.DataFrame) -> str:
    there = ", ".join(f"'{column}'" for column in frame.columns[:12])
    return (
        f"The table '{path.name}' is not read: no mapping fits its columns ({there}); rename them as one HECKTOR "
        "edition "
        "does, or name the hospital's own mapping in center.yaml."
    )


def _nowhere(kind: TableMapping, there: set[str] | None, *, is_own: bool) -> list[str]:
    """Columns that a mapping names and that no table has. A shipped one names more than any edition has, so it is asked
    only where there are columns that nothing reads: one of them may be meant."""
    if there is None:
        return [
            f"No table has the column '{kind.patient}' and the marks of the mapping '{kind.name}': it reads nothing."
        ]
    absent = {column: name for column, name in kind.columns.items() if column not in there}
    known = {column for mapping in shipped_mappings() for column in mapping.columns} | KNOWN
    strange = sorted(there - set(kind.columns) - known)
    if not absent or not (is_own or strange):
        return []
    named = ", ".join(f"'{column}' ({name})" for column, name in sorted(absent.items()))
    beside = f"; nothing reads {', '.join(map(repr, strange[:12]))}" if strange else ""
    return [f"No table has the columns {named} that the mapping '{kind.name}' names{beside}: rename what is meant."]


def read_table(path: Path, mapping: TableMapping, *, columns: Sequence[str] = ()) -> Rows:
    """One table of patients of any centers.

    Args:
        columns: further ones, whose cells are wanted as they are written.

    Raises:
        DataError: it cannot be read at all.
        UnknownName: a further column that it does not have.
    """
    rows = Rows()
    if not path.is_file():
        raise DataError(f"There is no table '{path}'; set data.table to a comma-separated file.")
    frame = _read(path, rows)
    if frame is None:
        raise DataError(rows.problems)
    rows.problems += _absent_columns(frame, mapping, path)
    if not rows.problems:
        own = _own_rows(_single(frame, mapping, path, rows), mapping, path, None, rows)
        _merge(rows, own, mapping, path)
        rows.cells = {name: _written(own, name, path) for name in columns}
        _check_outcomes(rows, (mapping,))
        _note_gaps(rows, mapping)
    rows.notes += rows.odd
    return rows


def _written(own: pd.DataFrame, name: str, path: Path) -> dict[str, str]:
    """A column's cells by patient, as they are written; empty where they are."""
    if plain(name) not in own.columns:
        raise UnknownName("column", name, sorted({*own.columns} - {"patient", "center"}), where=path.name)
    cells = own[plain(name)].fillna("").astype(str).str.strip()
    return dict(zip(own["patient"], cells, strict=True))


def _absent_columns(frame: pd.DataFrame, mapping: TableMapping, path: Path) -> list[str]:
    absent = {column: name for column, name in mapping.columns.items() if column not in frame.columns}
    if not absent:
        return []
    named = ", ".join(f"'{column}' ({name})" for column, name in absent.items())
    there = ", ".join(f"'{column}'" for column in frame.columns[:30])
    return [f"Mapping '{mapping.name}' names columns that '{path.name}' lacks: {named}; its columns are {there}."]


def _read(path: Path, rows: Rows) -> pd.DataFrame | None:
    """The table with plain column names; an empty cell is NaN, every other cell is as it is written."""
    try:
        table = read_rows(path)
    except DataError as error:
        rows.problems += error.problems
        return None
    if not any(table.header):
        rows.problems.append(f"The table '{path.name}' is empty; export it again or remove it.")
        return None
    rows.notes += [f"{note}." for note in table.notes]
    if table.ragged:
        rows.odd.append(
            f"{table.ragged} rows of '{path.name}' have another number of cells than the header and are not read."
        )
    if not table.rows:
        rows.odd.append(f"The table '{path.name}' has a header but no row.")
    frame = pd.DataFrame(table.rows, columns=[plain(name) for name in table.header], dtype=object)
    return frame.mask(frame == "")


def _single(frame: pd.DataFrame, kind: TableMapping, path: Path, rows: Rows) -> pd.DataFrame:
    """The table without columns that stand twice: which of them counts cannot be told. Without the patients' IDs and
    centers nobody can be told apart; a doubled outcome stops the steps that need it."""
    first = ~frame.columns.duplicated()
    wanted = sorted(set(frame.columns[~first]) & set(kind.columns))
    if not wanted:
        return frame.loc[:, first]
    whose = {kind.patient, kind.center}
    stops = bool(whose & {*wanted})
    sentence = (
        f"The table '{path.name}' has several columns called {', '.join(map(repr, wanted))} (parentheses do not "
        f"count){'' if stops else ', so none of them is read'}; rename or remove all but one."
    )
    spoiled = [name for name, o in kind.outcomes.items() if {o.event.column, o.time} & {*wanted}]
    if stops:
        rows.problems.append(sentence)
    elif spoiled:
        for name in spoiled:
            _cannot_tell(rows, name, sentence)
    else:
        rows.odd.append(sentence)
    return frame.loc[:, first & ~frame.columns.isin([column for column in wanted if column not in whose])]


def _own_rows(frame: pd.DataFrame, kind: TableMapping, path: Path, center: str | None, rows: Rows) -> pd.DataFrame:
    """The rows of one center with columns 'patient' and 'center'; duplicates and nameless rows become problems."""
    names = frame[kind.patient].fillna("").map(lambda name: re.sub(r"(__CT)?(\.nii(\.gz)?)?$", "", name).strip())
    where = None if kind.center is None else frame[kind.center].fillna("").str.strip()
    if where is not None:
        where, joined = one_spelling(where)
        rows.notes += [f"Centers of '{path.name}' under several spellings were joined: {pair}." for pair in joined]
    known = _named(list(names), None if where is None else list(where))
    named = frame.assign(patient=[k and k[0] for k in known], center=[k and k[1] for k in known])
    nameless = [number for number, k in enumerate(known, start=1) if k is None]
    if nameless:
        wanted = "an ID and a center" if kind.center else "an ID of the form CENTER-NUMBER (as in CHUM-001)"
        log.warning("table=%s rows without an ID: %s (the first row below the header is 1)", path.name, nameless)
        few = is_few(len(nameless), len(known))
        left = " and are not read" if few else ""
        (rows.odd if few else rows.problems).append(
            f"{len(nameless)} rows of '{path.name}' lack {wanted}{left}; correct or remove them."
        )
    named = named[named["patient"].notna()]
    own = named if center is None else named[named["center"] == center]
    copies = own.duplicated()
    if copies.any():
        rows.odd.append(
            f"{int(copies.sum())} rows of '{path.name}' stand there twice, equal in every cell; once counts."
        )
        own = own[~copies]
    repeated = sorted(set(own["patient"][own["patient"].duplicated()]))
    if repeated:
        log.warning("table=%s duplicate patients: %s", path.name, repeated)
        few = is_few(len(repeated), own["patient"].nunique())
        left = ", with different rows, none of which is read" if few else ""
        (rows.odd if few else rows.problems).append(
            f"{len(repeated)} patients stand more than once in '{path.name}'{left}; keep one row each."
        )
        for patient in repeated:
            rows.refused.setdefault(patient, set()).update(kind.outcomes)
    return own[~own["patient"].isin(repeated)]


def is_few(wrong: int, of: int) -> bool:
    """Whether what is wrong costs those patients only: one, or at most a tenth of them."""
    return wrong <= max(1, FEW * of)


def _named(names: list[str], centers: list[str] | None) -> list[tuple[str, str] | None]:
    """(patient, center) of each row, or None where either is missing.

    With a column of centers an ID such as P001 is the hospital's own number: where two centers gave the same one, the
    center stands before it.
    """
    parsed = [patient_id(name) for name in names]
    if centers is None:
        return list(parsed)
    seen: dict[str, set[str]] = {}
    for found, center in zip(parsed, centers, strict=True):
        if found:
            seen.setdefault(found[0], set()).add(center)
    shared = any(len(where) > 1 for where in seen.values())
    return [
        (found[0] if found and not (shared and found[1] != center) else f"{center}/{name}", center)
        if name and center
        else None
        for name, found, center in zip(names, parsed, centers, strict=True)
    ]


def _merge(rows: Rows, own: pd.DataFrame, kind: TableMapping, path: Path) -> None:
    for patient, center in zip(own["patient"], own["center"], strict=True):
        rows.fields.setdefault(patient, {})
        rows.centers[patient] = center
    for name, source in kind.variables.items():
        variable = SCHEMA[name]

        def read(patient: str, cell: str, variable=variable, source=source) -> Value | None:
            return read_cell(variable, cell, source.values)

        wanted = variable.expected + (", or name it under values: in the mapping" if variable.levels else "")
        silent = partial(says_unknown, meanings=source.values, levels=variable.levels)
        _merge_column(rows, own, source.column, rows.fields, name, read, wanted, path, silent=silent)
    for name, outcome in kind.outcomes.items():

        def event(patient: str, cell: str, outcome=outcome) -> int | None:
            value = read_cell(EVENT, cell, outcome.event.values)
            return None if value is None else int(float(value))

        def days(patient: str, cell: str, outcome=outcome) -> float:
            return outcome.days(read_time(cell), rows.centers[patient])

        coded = f"{EVENT.expected}, or say under values: in the mapping what a code such as 1 or 2 means"
        silent = partial(says_unknown, meanings=outcome.event.values)
        _merge_column(
            rows, own, outcome.event.column, rows.events, name, event, coded, path, silent=silent, outcome=True
        )
        silent = partial(says_unknown, meanings={})
        wanted = "a time from 0 upwards"
        _merge_column(rows, own, outcome.time, rows.days, name, days, wanted, path, silent=silent, outcome=True)


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
    silent: Callable[[str], bool],
    outcome: bool = False,
) -> None:
    """Read one column of every row into ``into``; cells that cannot be read become one sentence, and an outcome's cost
    their patients that outcome, or stop the center where they are not few.

    Args:
        silent: whether a cell says that nothing is known.
    """
    if column not in own.columns:
        return
    wrong: list[str] = []
    contradicting: list[str] = []
    unknown, values = 0, set()
    for patient, cell in own[["patient", column]].dropna().itertuples(index=False):
        if silent(cell):
            unknown += 1
            continue
        try:
            value = read(patient, cell)
        except (ValueError, OverflowError):
            log.warning("table=%s case=%s %s cannot be read: %r", path.name, patient, column, cell)
            wrong.append(patient)
            continue
        values.add(value)
        if value is not None and value == value and into.setdefault(patient, {}).setdefault(name, value) != value:
            contradicting.append(patient)
    # a status of which only one code is understood is another code: 1 and 2 are no events and typing errors
    coded = into is rows.events and len(values) < 2
    wrong_stops = outcome and (coded or not is_few(len(wrong), len(own)))
    contradiction_stops = outcome and not is_few(len(contradicting), len(own))
    if outcome:
        for patient in [*wrong, *contradicting]:
            rows.refused.setdefault(patient, set()).add(name)
    stops = partial(_cannot_tell, rows, name) if outcome else rows.problems.append
    if wrong:
        left = "" if wrong_stops else " and count as not recorded"
        (stops if wrong_stops else rows.odd.append)(
            f"{len(wrong)} values of '{column}' in '{path.name}' cannot be used{left}; write {wanted}, or leave the "
            "cell empty where it is unknown."
        )
    if contradicting:
        log.warning("table=%s %s differs from an earlier table: %s", path.name, name, sorted(contradicting))
        counts = "" if contradiction_stops else ", so neither counts" if outcome else ", which counts"
        (stops if contradiction_stops else rows.odd.append)(
            f"{len(contradicting)} patients have another '{column}' in '{path.name}' than in an earlier table{counts}; "
            "make the tables agree."
        )
    if unknown:
        rows.notes.append(f"{unknown} cells of '{column}' in '{path.name}' say in a word that nothing is known.")


# -------------------------------------------------------------------------------------------------- outcomes and gaps


def _check_outcomes(rows: Rows, mappings: tuple[TableMapping, ...]) -> None:
    names = sorted({n for e in rows.events.values() for n in e} | {n for d in rows.days.values() for n in d})
    declared = {name: outcome for mapping in reversed(mappings) for name, outcome in mapping.outcomes.items()}
    for patient, unsure in rows.refused.items():
        for name in unsure:
            rows.days.get(patient, {}).pop(name, None)
            rows.events.get(patient, {}).pop(name, None)
    for name in names:
        _check_pairs(rows, name)
        if not declared[name].confirmed:
            for sentence in _odd_units(rows, name, declared[name]):
                _cannot_tell(rows, name, sentence)
    for name in rows.untold:
        for patient in rows.centers:
            rows.days.get(patient, {}).pop(name, None)
            rows.events.get(patient, {}).pop(name, None)


def _cannot_tell(rows: Rows, name: str, sentence: str) -> None:
    """Note what stops every step that needs an outcome."""
    rows.problems.append(sentence)
    rows.untold.setdefault(name, []).append(sentence)


def _check_pairs(rows: Rows, name: str) -> None:
    timeless = [p for p, e in rows.events.items() if e.get(name) == 1 and name not in rows.days.get(p, {})]
    if timeless:
        log.warning("event without a time: %s", timeless)
        few = is_few(len(timeless), len(rows.events))
        left = ", and are left out where this outcome is studied" if few else ""
        (rows.odd.append if few else partial(_cannot_tell, rows, name))(
            f"{len(timeless)} patients have an event without a time ({name}){left}; enter the time of the event or "
            "leave both empty."
        )
    open_ended = [p for p, e in rows.events.items() if e.get(name) == 0 and name not in rows.days.get(p, {})]
    unsaid = [p for p, d in rows.days.items() if name in d and name not in rows.events.get(p, {})]
    for count, what in (
        (len(open_ended), "no event and no time"),
        (len(unsaid), "a time, but not whether it ended in an event"),
    ):
        if count:
            rows.notes.append(
                f"{count} patients have {what} ({name}); they are left out where this outcome is studied."
            )


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
    if everything and max(everything) > LONGEST_FOLLOW_UP:
        years = max(everything) / 365.25
        return [f"A time of '{name}' is {years:.0f} years: is its unit right? If it is not, {fix}."]
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


def read_chest(root: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str], Rows]:
    """Findings (0, 1, or -1 for unknown, in the order of FINDINGS) and report texts by patient, and what is wrong."""
    rows = Rows()
    labels = _chest_frame(root / "chest_labels.csv", rows, wanted=[plain(name) for name in FINDINGS])
    reports = _chest_frame(root / "chest_reports.csv", rows, wanted=list(REPORT_COLUMNS))
    absent = [name for name in FINDINGS if labels is not None and plain(name) not in labels.columns]
    if absent:
        rows.problems.append(f"'chest_labels.csv' lacks the columns {', '.join(absent)}; add them, empty if unknown.")
    findings = {} if labels is None or absent else _findings(labels, rows)
    texts = {} if reports is None else _texts(reports)
    return findings, texts, rows


def _chest_frame(path: Path, rows: Rows, *, wanted: Sequence[str]) -> pd.DataFrame | None:
    """One of the chest cohort's tables by patient. A column that is wanted and stands twice stops the center."""
    frame = _read(path, rows) if path.is_file() else None
    if frame is None:
        return None
    double = sorted(set(frame.columns[frame.columns.duplicated()]) & {"volumename", *wanted})
    if double:
        rows.problems.append(
            f"The table '{path.name}' has several columns called {', '.join(map(repr, double))}; keep one of each."
        )
    frame = frame.loc[:, ~frame.columns.duplicated()]
    if "volumename" not in frame.columns:
        rows.problems.append(f"'{path.name}' has no column 'VolumeName'; add it with names such as CHEST-0001.")
        return None
    return _own_rows(frame, TableMapping("chest", "volumename"), path, None, rows).set_index("patient")


def _findings(labels: pd.DataFrame, rows: Rows) -> dict[str, tuple[int, ...]]:
    """0, 1 or, where a cell is empty, says that nothing is known or cannot be read, -1."""
    wrong: list[str] = []
    silent = 0
    found: dict[str, tuple[int, ...]] = {}
    for patient, cells in labels[[plain(name) for name in FINDINGS]].iterrows():
        values = []
        for cell in cells:
            value = -1
            if isinstance(cell, str) and says_unknown(cell, {}):
                silent += 1
            elif isinstance(cell, str):
                try:
                    value = int(float(read_cell(EVENT, cell, {}) or 0.0))
                except ValueError:
                    wrong.append(str(patient))
            values.append(value)
        found[str(patient)] = tuple(values)
    if silent:
        rows.notes.append(f"{silent} cells of 'chest_labels.csv' say in a word that nothing is known.")
    if wrong:
        log.warning("table=chest_labels.csv cells that are neither 0 nor 1, of cases: %s", sorted(set(wrong)))
        few = is_few(len(set(wrong)), len(labels))
        left = " and count as not known" if few else ""
        (rows.odd if few else rows.problems).append(
            f"{len(wrong)} cells of 'chest_labels.csv' are neither 0, 1 nor empty{left}; correct them."
        )
    return found


def _texts(reports: pd.DataFrame) -> dict[str, str]:
    parts = reports.reindex(columns=list(REPORT_COLUMNS)).fillna("")
    joined = {
        str(patient): " ".join(" ".join(row).split()) for patient, row in zip(parts.index, parts.values, strict=True)
    }
    return {patient: text for patient, text in joined.items() if text}
