"""A hospital's table as a declared mapping: which column is which variable of `common.data.records`, and its codes.

A mapping is a small YAML file (the shipped ones are in configs/mapping/): a new hospital writes one and no code. A
column that no mapping names is never read, so it can reach neither a record nor a report. Column names are compared in
lower case without their parenthesis: 'HPV status (0=-, 1=+)' is 'hpv status'.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from common.data.records import CHOICE, FLAG, NUMBER, ORDERED, SCHEMA, Value, Variable
from common.errors import DataError
from common.text_yaml import load_text

SHIPPED = Path(__file__).resolve().parents[3] / "configs" / "mapping"
DAYS_PER = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}
LONGEST_DAYS = 40_000.0
EVENT = Variable("event", FLAG)
YES_NO = dict.fromkeys(("1", "yes", "y", "true", "positive"), 1.0) | dict.fromkeys(
    ("0", "no", "n", "false", "negative"), 0.0
)
DEFAULT = "default"
UNKNOWN = frozenset(
    {
        *"na n/a n.a. n.a #n/a <na> nan -nan null none unknown unk ? - -- . missing".split(),  # noqa: SIM905
        "not recorded",
        "not available",
        "not known",
    }
)
"""What people and programs write for a value that is not known, unless the mapping gives the word a meaning."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where a variable comes from: a column, and the meanings of cells that do not speak the schema's language."""

    column: str
    values: Mapping[str, Value | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Time to an event. ``units`` by center, or under 'default'; ``confirmed``: a person looked at odd times."""

    event: Source
    time: str
    units: Mapping[str, str]
    confirmed: bool = False

    def days(self, value: float, center: str) -> float:
        """A recorded time in days."""
        return value * DAYS_PER[self.units.get(center, self.units.get(DEFAULT, "days"))]


@dataclass(frozen=True)
class TableMapping:
    """One kind of table.

    Args:
        marks: columns that tell it from other kinds; a mapping that is named by path needs none.
        center: the column that names each row's center; None: the ID's letters do (CHUM-001).
    """

    name: str
    patient: str
    center: str | None = None
    marks: frozenset[str] = frozenset()
    variables: Mapping[str, Source] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, str]:
        """Plain column name -> what it is mapped to, for messages."""
        named = {self.patient: "patient", **({self.center: "center"} if self.center else {})}
        named |= {source.column: name for name, source in self.variables.items()}
        for name, outcome in self.outcomes.items():
            named |= {outcome.event.column: f"{name}.event", outcome.time: f"{name}.time"}
        return named


def plain(column: str) -> str:
    """A column's name as it is compared."""
    return " ".join(re.sub(r"\(.*?\)", " ", str(column)).lower().split())


@lru_cache(maxsize=1)
def shipped_mappings() -> tuple[TableMapping, ...]:
    """The mappings of configs/mapping, in the order of their file names."""
    return tuple(load_mapping(path) for path in sorted(SHIPPED.glob("*.yaml")))


def mapping_for(columns: set[str], mappings: tuple[TableMapping, ...]) -> TableMapping | None:
    """The mapping whose marks are all there and that names most of these columns; None where no marks fit."""
    fitting = [m for m in mappings if m.marks and m.marks <= columns and m.patient in columns]
    return max(fitting, key=lambda m: len(columns & set(m.columns)), default=None)


def load_mapping(path: Path | str) -> TableMapping:
    """The mapping that a YAML file declares. Raises DataError with everything that is wrong with it."""
    path = Path(path)
    try:
        declared: Any = load_text(path)
    except yaml.YAMLError as error:
        raise DataError(f"The mapping '{path}' is not YAML: {' '.join(str(error).split())[:200]}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"The mapping '{path}' cannot be read ({type(error).__name__}); give a YAML file.") from error
    problems: list[str] = []
    mapping = _mapping(declared if isinstance(declared, dict) else {}, path.stem, problems)
    if problems:
        raise DataError([f"Mapping '{path.name}': {problem}" for problem in problems])
    return mapping


def _mapping(declared: dict[Any, Any], stem: str, problems: list[str]) -> TableMapping:
    for key in sorted(set(map(str, declared)) - {"name", "marks", "patient", "center", "variables", "outcomes"}):
        problems.append(f"it has the key '{key}'; known: center, marks, name, outcomes, patient, variables.")
    if not declared.get("patient"):
        problems.append("it does not say which column holds the patient's ID; add patient: COLUMN.")
    variables = {str(k): v for k, v in (declared.get("variables") or {}).items()}
    outcomes = {str(k): v for k, v in (declared.get("outcomes") or {}).items()}
    return TableMapping(
        name=str(declared.get("name") or stem),
        patient=plain(declared.get("patient", "")),
        center=plain(declared["center"]) if declared.get("center") else None,
        marks=frozenset(plain(column) for column in declared.get("marks") or []),
        variables={
            name: _source(SCHEMA[name], entry, problems)
            for name, entry in variables.items()
            if _is_known(name, problems)
        },
        outcomes={name: _outcome(name, entry, problems) for name, entry in outcomes.items()},
    )


def _is_known(name: str, problems: list[str]) -> bool:
    if name not in SCHEMA:
        close = difflib.get_close_matches(name, SCHEMA, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        problems.append(f"'{name}' is no variable of the clinical schema; known: {', '.join(sorted(SCHEMA))}.{hint}")
    return name in SCHEMA


def _source(variable: Variable, entry: Any, problems: list[str]) -> Source:
    if not isinstance(entry, dict):
        return Source(plain(entry))
    extra = sorted(set(map(str, entry)) - {"column", "values"})
    if extra or not entry.get("column"):
        problems.append(f"'{variable.name}' must be a column's name, or column: and values:; it also has {extra}.")
    return Source(plain(entry.get("column", "")), _meanings(variable, entry.get("values") or {}, problems))


def _meanings(variable: Variable, declared: dict[Any, Any], problems: list[str]) -> dict[str, Value | None]:
    meanings: dict[str, Value | None] = {}
    for cell, meaning in declared.items():
        try:
            meanings[_key(str(cell))] = None if meaning is None else read_cell(variable, str(meaning), {})
        except ValueError:
            problems.append(f"'{variable.name}' gives '{cell}' the meaning '{meaning}'; use {variable.expected}.")
    return meanings


def _outcome(name: str, entry: Any, problems: list[str]) -> Outcome:
    entry = entry if isinstance(entry, dict) else {}
    extra = sorted(set(map(str, entry)) - {"event", "time", "unit", "confirmed"})
    if extra or not (entry.get("event") and entry.get("time")):
        problems.append(f"outcome '{name}' needs event: COLUMN and time: COLUMN, and may have unit: and confirmed:.")
    unit = entry.get("unit", "days")
    units = {str(k): str(v) for k, v in unit.items()} if isinstance(unit, dict) else {DEFAULT: str(unit)}
    for wrong in sorted(set(units.values()) - set(DAYS_PER)):
        problems.append(f"outcome '{name}' has the unit '{wrong}'; it can be {', '.join(DAYS_PER)}.")
    event = _source(EVENT, entry.get("event", ""), problems)
    return Outcome(event, plain(entry.get("time", "")), units, confirmed=_is_yes(entry.get("confirmed")))


def _is_yes(written: Any) -> bool:
    return str(written).lower() in ("true", "yes", "on", "1")


# ------------------------------------------------------------------------------------------------------------ cells


def read_cell(variable: Variable, cell: str, meanings: Mapping[str, Value | None]) -> Value | None:
    """A cell as a value of the schema; None where it says that nothing is known. Raises ValueError."""
    key = _key(cell)
    if key in meanings:
        return meanings[key]
    if variable.kind == NUMBER:
        return _number(cell, variable.low, variable.high)
    if variable.kind == FLAG:
        return _one_of(key, YES_NO)
    if variable.kind == ORDERED:
        return _ordered(key, variable)
    if variable.kind == CHOICE:
        return _one_of(key.replace(" ", "_"), {level: level for level in variable.levels})
    return " ".join(re.findall(r"[a-z]+", cell.lower()))


def says_unknown(cell: str, meanings: Mapping[str, Value | None], levels: Sequence[str] = ()) -> bool:
    """Whether a cell says in a word that nothing is known; a word with a meaning of its own does not."""
    key = _key(cell)
    return key in UNKNOWN and key not in meanings and key not in levels


def read_time(cell: str) -> float:
    """A recorded time from zero upwards. Raises ValueError."""
    return _number(cell, 0, LONGEST_DAYS)


def _key(cell: str) -> str:
    key = cell.strip().lower()
    return key[:-2] if key.endswith(".0") else key  # pandas writes integers beside blanks as 1.0


def _number(cell: str, low: float, high: float) -> float:
    if _NUMBER.fullmatch(cell.strip()) is None:  # Python would also read 6_1, or digits of another script
        raise ValueError(cell)
    value = float(cell)
    if not low <= value <= high:
        raise ValueError(cell)
    return value


def _one_of(key: str, options: Mapping[str, Value]) -> Value:
    if key not in options:
        raise ValueError(key)
    return options[key]


def _ordered(key: str, variable: Variable) -> Value | None:
    """A level; for TNM stages also 'T4a', '4' and, as nothing known, 'Tx' and 'Tis'."""
    if key in variable.levels:
        return key
    letter = variable.levels[0][0]
    match = re.fullmatch(rf"{letter}?(?:([0-9])(?:\.0)?[a-d]?|x|is)", key)
    if match is None or not variable.name.endswith("_stage"):
        raise ValueError(key)
    return _one_of(f"{letter}{match[1]}", {level: level for level in variable.levels}) if match[1] else None
