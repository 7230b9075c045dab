"""The clinical schema: which variables exist, what they may say, and how a record becomes the same columns everywhere.

A hospital's table is turned into this schema by a small mapping (configs/mapping/*.yaml, read by
`client.data.hecktor.mapping`); nothing here depends on a center. Every variable has a known flag; a value that is not
recorded is zero. Outcomes and follow-up are no variables, so they cannot reach a record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import UnknownName

if TYPE_CHECKING:
    import numpy as np

    from common.exact.columns import Layout

Value = float | str
Record = Mapping[str, Value]

NUMBER, FLAG, ORDERED, CHOICE, WORDS = "number", "flag", "ordered", "choice", "words"
BASELINE, PLAN, ACQUIRED = "baseline", "plan", "acquired"


@dataclass(frozen=True)
class Variable:
    """One clinical variable.

    Args:
        kind: number; flag (0 or 1); ordered or choice (one of ``levels``); words (free text, for the report only).
        low, high: of a number, in ``unit``.
        levels: in their order; a choice of two becomes one column, of more one column each, an ordered one its rank.
        log: a number whose logarithm is used.
        when: baseline; plan: decided after the diagnosis, so no input of a task that predicts the diagnosis; or
            acquired: of the images, so no input of a model at all.
    """

    name: str
    kind: str
    unit: str = ""
    low: float = 0.0
    high: float = 1.0
    levels: tuple[str, ...] = ()
    log: bool = False
    when: str = BASELINE

    @property
    def expected(self) -> str:
        """What to write, for the person who has to mend a table."""
        if self.kind == NUMBER:
            return f"{self.unit} from {self.low:g} to {self.high:g}".strip()
        if self.kind == FLAG:
            return "0 or 1"
        return ", ".join(self.levels[:-1]) + f" or {self.levels[-1]}" if self.levels else "words"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its value columns; none for words."""
        if self.kind == WORDS:
            return ()
        if self.kind == CHOICE and len(self.levels) > 2:
            return tuple(f"{self.name}={level}" for level in self.levels)
        return (f"{self.name}={self.levels[-1]}",) if self.kind == CHOICE else (self.name,)

    def encode(self, value: Value) -> list[float]:
        """A recorded value as numbers, one per column."""
        if self.kind == CHOICE:
            hot = [float(value == level) for level in self.levels]
            return hot if len(hot) > 2 else hot[-1:]
        if self.kind == ORDERED:
            return [float(self.levels.index(str(value)))]
        if not self.log:
            return [float(value)]
        import numpy as np  # names of variables are asked for where nothing is computed

        return [float(np.log(float(value)))]


SCHEMA: dict[str, Variable] = {
    variable.name: variable
    for variable in (
        Variable("age", NUMBER, "years", 0, 120),
        Variable("gender", CHOICE, levels=("female", "male")),
        Variable("weight_kg", NUMBER, "kilograms", 1, 400),
        Variable("performance_status", NUMBER, "", 0, 4),
        Variable("tobacco", FLAG),
        Variable("alcohol", FLAG),
        Variable("hpv", FLAG),
        Variable("t_stage", ORDERED, levels=("t0", "t1", "t2", "t3", "t4")),
        Variable("n_stage", ORDERED, levels=("n0", "n1", "n2", "n3")),
        Variable("m_stage", ORDERED, levels=("m0", "m1")),
        Variable("grade", ORDERED, levels=("low", "intermediate", "high")),
        Variable(
            "tumor_site",
            CHOICE,
            levels=("oropharynx", "hypopharynx", "nasopharynx", "larynx", "oral_cavity", "limb", "trunk", "other"),
        ),
        Variable("site", WORDS),
        Variable("histology", WORDS),
        Variable("tumor_volume_ml", NUMBER, "millilitres", 0.001, 20_000, log=True),
        Variable("treatment", CHOICE, levels=("radiotherapy", "chemoradiotherapy"), when=PLAN),
        Variable("chemotherapy", FLAG, when=PLAN),
        Variable("radiotherapy", FLAG, when=PLAN),
        Variable("surgery", FLAG, when=PLAN),
        Variable("scanner", CHOICE, levels=("canon", "ge", "philips", "siemens", "other"), when=ACQUIRED),
    )
}
# One fact under two names: HECKTOR 2022 says whether chemotherapy was given, 2025 which of two treatments. A record
# keeps what was written; the columns hold it once.
SAME_FACT = {"treatment": ("chemotherapy", {"radiotherapy": 0.0, "chemoradiotherapy": 1.0})}
STAGING = frozenset({"t_stage", "n_stage", "m_stage", "tumor_volume_ml"})
PROXIES: dict[str, frozenset[str]] = {
    "hpv": frozenset({"hpv"}),
    **dict.fromkeys(("t_stage", "n_stage", "m_stage"), STAGING),
}
MODEL_VARIABLES = tuple(n for n, v in SCHEMA.items() if v.kind != WORDS and v.when != ACQUIRED and n not in SAME_FACT)


def withheld_for(target: str) -> frozenset[str]:
    """The variables that a task must not see: its target, the target's proxies, and what was decided after it.

    Args:
        target: ``hpv``, ``t_stage``, ``n_stage`` or ``m_stage`` for a diagnosis; ``outcome`` (time to an event)
            withholds nothing: follow-up is in no record, and the plan stands when follow-up begins.
    """
    if target == "outcome":
        return frozenset()
    if target not in PROXIES:
        raise UnknownName("target", target, ["outcome", *PROXIES])
    return PROXIES[target] | {name for name, variable in SCHEMA.items() if variable.when == PLAN}


def record_layout(
    variables: Collection[str] = MODEL_VARIABLES, *, withhold: Collection[str] = (), with_flags: bool = True
) -> Layout:
    """The columns of a record, in the schema's order. Raises UnknownName for a variable that the schema lacks."""
    from common.exact.columns import Layout

    for name in variables:
        if name not in MODEL_VARIABLES:
            raise UnknownName("clinical variable", name, MODEL_VARIABLES)
    chosen = [v for name, v in SCHEMA.items() if name in variables and name not in withhold]
    columns = [(column, position) for position, variable in enumerate(chosen) for column in variable.columns]
    return Layout(
        tuple(column for column, _ in columns),
        tuple(variable.name for variable in chosen),
        tuple(position for _, position in columns) or (),
        with_flags=with_flags,
    )


def encode_records(records: Sequence[Record], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, F) and known flags (n, V) of records, float64."""
    import numpy as np

    facts = [_facts(record) for record in records]
    values = np.array([_values(fact, layout) for fact in facts], np.float64).reshape(len(records), len(layout.values))
    flags = np.array([[float(name in fact) for name in layout.flags] for fact in facts], np.float64)
    return values, flags.reshape(len(records), len(layout.flags))


def _facts(record: Record) -> dict[str, Value]:
    """The record with each fact under one name."""
    facts = dict(record)
    for other, (name, meanings) in SAME_FACT.items():
        if other in facts and name not in facts:
            facts[name] = meanings[str(facts[other])]
    return facts


def _values(facts: Record, layout: Layout) -> list[float]:
    row: list[float] = []
    for name in layout.flags:
        variable = SCHEMA[name]
        row += variable.encode(facts[name]) if name in facts else [0.0] * len(variable.columns)
    return row
