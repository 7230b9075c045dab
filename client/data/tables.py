"""Clinical tables of every HECKTOR edition as declared column maps: a recorded cell becomes a canonical field.

`TABLES` is the only place that knows a column's name. A column that no map names (Death, OS, CenterID, the sts7
Chemotherapy that was given because of metastases) is never read, so it can reach neither a record nor a report.
Column names are compared in lower case without their parenthesis: 'HPV status (0=-, 1=+)' is 'hpv status'.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from common.findings import FINDINGS

Value = float | str
Parse = Callable[[str], Value | None]
log = logging.getLogger("fedgraft.center")

CENTER_ALIASES = {"CHGJ": "HGJ", "CHMR": "HMR"}  # the prefixes of 2020 and 2021
_IDENTIFIER = re.compile(r"^([A-Za-z]+)[-_ ]?(\d{2,5})$")


def patient_id(text: str) -> tuple[str, str] | None:
    """('CHUM-001', 'CHUM') of 'CHUM-001', 'CHUM_001' or 'CHUM001'; None where the text is no patient's ID."""
    match = _IDENTIFIER.match(text.strip())
    if match is None:
        return None
    prefix = match[1].upper()
    center = CENTER_ALIASES.get(prefix, prefix)
    return f"{center}-{match[2]}", center


# ----------------------------------------------------------------------------------- cells; each raises ValueError


def _number(low: float, high: float) -> Parse:
    def parse(cell: str) -> Value:
        value = float(cell)
        if not low <= value <= high:
            raise ValueError(cell)
        return value

    return parse


def _choice(options: Mapping[str, Value | None]) -> Parse:
    def parse(cell: str) -> Value | None:
        key = cell.strip().lower()
        key = key[:-2] if key.endswith(".0") else key  # pandas writes integers beside blanks as 1.0
        if key not in options:
            raise ValueError(cell)
        return options[key]

    return parse


def _stage(letter: str) -> Parse:
    def parse(cell: str) -> Value | None:
        match = re.fullmatch(rf"{letter}?(?:([0-4])(?:\.0)?[a-d]?|x|is)", cell.strip().lower())
        if match is None:
            raise ValueError(cell)
        return f"{letter}{match[1]}" if match[1] else None

    return parse


def _words(cell: str) -> Value:
    return " ".join(re.findall(r"[a-z]+", cell.lower()))


_age, _weight, _performance = _number(0, 120), _number(1, 400), _number(0, 4)
_days = _number(0, 40_000)
_flag = _choice({"0": 0.0, "1": 1.0})
_gender = _choice({"m": "male", "1": "male", "male": "male", "f": "female", "0": "female", "female": "female"})
_grade = _choice({"low": "low", "intermediate": "intermediate", "high": "high"})
_treatment = _choice(
    {"0": "radiotherapy", "rt": "radiotherapy"}
    | dict.fromkeys(("1", "chemo-rt", "chemort", "crt", "chemoradiotherapy"), "chemoradiotherapy")
)


@dataclass(frozen=True)
class Table:
    """One kind of table: the columns that tell it from the others, and where each column goes."""

    edition: str
    marks: frozenset[str]
    columns: Mapping[str, tuple[str, Parse]]


TABLES = (
    Table(
        "2021 clinical",
        frozenset({"tnm edition"}),
        {
            "age": ("age", _age),
            "gender": ("gender", _gender),
            "estimated weight for suv": ("weight_kg", _weight),
            "tobacco": ("tobacco", _flag),
            "alcohol": ("alcohol", _flag),
            "performance status": ("performance_status", _performance),
            "hpv status": ("hpv", _flag),
            "t-stage": ("t_stage", _stage("t")),
            "n-stage": ("n_stage", _stage("n")),
            "m-stage": ("m_stage", _stage("m")),
        },
    ),
    Table(
        "2021 endpoint",
        frozenset({"progression", "progression free survival"}),
        {"progression": ("event", _flag), "progression free survival": ("days", _days)},
    ),
    Table(
        "sts7",
        frozenset({"mskcc type"}),
        {
            "age": ("age", _age),
            "gender": ("gender", _gender),
            "weight": ("weight_kg", _weight),
            "mskcc type": ("histology", _words),
            "site": ("site", _words),
            "grade": ("grade", _grade),
            "radiotherapy": ("radiotherapy", _flag),
            "surgery": ("surgery", _flag),
            "relapse": ("event", _flag),
            "rfs": ("days", _days),
        },
    ),
    Table(
        "2025 and 2026",
        frozenset({"tobacco consumption"}),
        {
            "age": ("age", _age),
            "gender": ("gender", _gender),
            "tobacco consumption": ("tobacco", _flag),
            "alcohol consumption": ("alcohol", _flag),
            "performance status": ("performance_status", _performance),
            "treatment": ("treatment", _treatment),
            "surgery": ("surgery", _flag),
            "hpv status": ("hpv", _flag),
            "t-stage": ("t_stage", _stage("t")),
            "n-stage": ("n_stage", _stage("n")),
            "m-stage": ("m_stage", _stage("m")),
            "site": ("site", _words),
            "relapse": ("event", _flag),
            "rfs": ("days", _days),
        },
    ),
    Table(
        "2022 clinical",
        frozenset({"age", "gender"}),
        {
            "age": ("age", _age),
            "gender": ("gender", _gender),
            "weight": ("weight_kg", _weight),
            "tobacco": ("tobacco", _flag),
            "alcohol": ("alcohol", _flag),
            "performance status": ("performance_status", _performance),
            "hpv status": ("hpv", _flag),
            "surgery": ("surgery", _flag),
            "chemotherapy": ("chemotherapy", _flag),
        },
    ),
    Table("2022 endpoint", frozenset({"relapse", "rfs"}), {"relapse": ("event", _flag), "rfs": ("days", _days)}),
)

EXPECTED = {  # what to write, by field; said to the person who has to mend the table
    "age": "years from 0 to 120",
    "days": "days from 0 upwards",
    "event": "0 or 1",
    "gender": "M, F, 1 (male) or 0 (female)",
    "grade": "low, intermediate or high",
    "m_stage": "M0, M1 or Mx",
    "n_stage": "N0 to N3",
    "performance_status": "0 to 4",
    "t_stage": "T0 to T4",
    "treatment": "0 (radiotherapy) or 1 (chemoradiotherapy)",
    "weight_kg": "kilograms from 1 to 400",
}


@dataclass
class Rows:
    """What the tables of one folder say: canonical fields by patient, centers by patient, and what is wrong."""

    fields: dict[str, dict[str, Value]] = field(default_factory=dict)
    centers: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_tables(root: Path, *, center: str | None = None) -> Rows:
    """Every clinical and endpoint table below ``root``, merged by patient; only ``center``'s rows if one is named.

    The same patient may stand in several tables (the tasks of 2025). Where two tables give different values the
    first in path order counts, except that contradicting outcomes are a problem.
    """
    rows = Rows()
    for path in sorted(root.rglob("*.csv")):
        frame = _read(path, rows.problems)
        if frame is None or "patientid" not in frame.columns:
            continue
        table = next((t for t in TABLES if t.marks <= set(frame.columns)), None)
        if table is not None:
            _merge(rows, _own_rows(frame, "patientid", path, center, rows), table, path)
    _check_outcomes(rows)
    return rows


def _read(path: Path, problems: list[str]) -> pd.DataFrame | None:
    try:
        frame = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' own errors and UnicodeDecodeError are ValueErrors
        problems.append(
            f"The table '{path.name}' cannot be read as comma-separated UTF-8 text ({type(error).__name__}); "
            "export it again or remove it."
        )
        return None
    frame.columns = pd.Index([_plain(str(name)) for name in frame.columns])
    return frame


def _plain(column: str) -> str:
    return " ".join(re.sub(r"\(.*?\)", " ", column).lower().split())


def _own_rows(frame: pd.DataFrame, column: str, path: Path, center: str | None, rows: Rows) -> pd.DataFrame:
    """The rows of one center with the ID in column 'patient'; duplicates and nameless rows become problems."""
    names = frame[column].fillna("").map(lambda name: patient_id(re.sub(r"(__CT)?(\.nii(\.gz)?)?$", "", name)))
    nameless = int(names.isna().sum())
    if nameless:
        rows.problems.append(
            f"{nameless} rows of '{path.name}' have an ID that is not CENTER-NUMBER (as in CHUM-001); correct or "
            "remove them."
        )
    named = frame[names.notna()].assign(patient=names.dropna().str[0], center=names.dropna().str[1])
    own = named if center is None else named[named["center"] == center]
    repeated = own["patient"].duplicated()
    if repeated.any():
        log.warning("table=%s duplicate patients: %s", path.name, sorted(set(own["patient"][repeated])))
        rows.problems.append(
            f"{own['patient'][repeated].nunique()} patients stand more than once in '{path.name}'; keep one row each."
        )
    return own[~repeated]


def _merge(rows: Rows, own: pd.DataFrame, table: Table, path: Path) -> None:
    for patient, center in zip(own["patient"], own["center"], strict=True):
        rows.fields.setdefault(patient, {})
        rows.centers[patient] = center
    for column, (name, parse) in table.columns.items():
        if column in own.columns:
            _merge_column(rows, own[["patient", column]].dropna(), name, parse, path)


def _merge_column(rows: Rows, cells: pd.DataFrame, name: str, parse: Parse, path: Path) -> None:
    wrong, contradicting = Counter[str](), 0
    for patient, cell in cells.itertuples(index=False):
        try:
            value = parse(cell)
        except ValueError:
            log.warning("table=%s case=%s %s cannot be read: %r", path.name, patient, name, cell)
            wrong[cells.columns[1]] += 1
            continue
        if value is not None and value == value:
            contradicting += rows.fields[patient].setdefault(name, value) != value
    for column, count in wrong.items():
        rows.problems.append(
            f"{count} values of '{column}' in '{path.name}' cannot be used; write {EXPECTED.get(name, '0 or 1')}, or "
            "leave the cell empty where it is unknown."
        )
    if contradicting and name in ("days", "event"):
        rows.problems.append(
            f"{contradicting} patients have another {name} in '{path.name}' than in an earlier table; make the tables "
            "agree."
        )
    elif contradicting:
        log.warning("table=%s %s differs from an earlier table for %d cases", path.name, name, contradicting)


def _check_outcomes(rows: Rows) -> None:
    timeless = [p for p, f in rows.fields.items() if f.get("event") == 1.0 and "days" not in f]
    if timeless:
        log.warning("event without a time: %s", timeless)
        rows.problems.append(
            f"{len(timeless)} patients have an event without a time; enter the days to the event or leave both empty."
        )


# ------------------------------------------------------------------------------------------------ the chest cohort


def read_chest(root: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str], list[str]]:
    """Findings (0, 1, or -1 for unknown, in the order of FINDINGS) and report texts by patient, and the problems."""
    rows = Rows()
    labels = _chest_frame(root / "chest_labels.csv", rows)
    reports = _chest_frame(root / "chest_reports.csv", rows)
    absent = [name for name in FINDINGS if labels is not None and _plain(name) not in labels.columns]
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
    return _own_rows(frame, "volumename", path, None, rows).set_index("patient")


def _findings(labels: pd.DataFrame, problems: list[str]) -> dict[str, tuple[int, ...]]:
    columns = labels[[_plain(name) for name in FINDINGS]]
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
