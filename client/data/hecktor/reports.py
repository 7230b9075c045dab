"""A clinical record as a short English report: a fixed template over recorded fields, made on site, never sent.

Only canonical fields with a template below are ever written; outcome, follow-up and center have none, and a field
that is not recorded leaves no trace (no "unknown", which would name the center). Free text (site, histology) is cut
down to the words listed here, so a name or a hospital in such a cell cannot reach the report, and the vocabulary is
closed. Laterality is not among them: augmentation mirrors the images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

Value = float | str

DECADES = (
    "infant",
    "teens",
    "twenties",
    "thirties",
    "forties",
    "fifties",
    "sixties",
    "seventies",
    "eighties",
    "nineties",
)
AGES, WEIGHTS = range(0, 121), range(0, 405, 5)
BUILDS = ((60.0, "light"), (90.0, "medium"), (float("inf"), "heavy"))

_FLAGS = {
    "tobacco": ("no tobacco use", "tobacco use"),
    "alcohol": ("no alcohol use", "alcohol use"),
    "hpv": ("hpv negative", "hpv positive"),
    "surgery": ("no surgery", "with surgery"),
    "chemotherapy": ("no chemotherapy", "with chemotherapy"),
    "radiotherapy": ("no radiotherapy", "with radiotherapy"),
}
_CHOICES: dict[str, dict[Value, str]] = {
    "treatment": {"radiotherapy": "treated with radiotherapy", "chemoradiotherapy": "treated with chemoradiotherapy"},
    "grade": {grade: f"{grade} grade" for grade in ("low", "intermediate", "high")},
    "t_stage": {f"t{n}": f"tumor stage t{n}" for n in range(5)},
    "n_stage": {f"n{n}": f"node stage n{n}" for n in range(5)},
    "m_stage": {f"m{n}": f"metastasis stage m{n}" for n in range(2)},
    "performance_status": {float(n): f"performance status {n}" for n in range(5)},
}
_SITES = (
    "oropharynx hypopharynx nasopharynx larynx glottis supraglottis oral cavity tonsil tongue base palate sinus "
    "unknown primary neck head thigh calf leg knee foot buttock groin pelvis hip arm forearm elbow hand shoulder "
    "axilla back chest trunk abdomen wall"
)
_HISTOLOGIES = (
    "liposarcoma leiomyosarcoma fibrosarcoma myxofibrosarcoma osteosarcoma angiosarcoma rhabdomyosarcoma sarcoma "
    "synovial mfh extraskeletal bone squamous cell carcinoma adenocarcinoma lymphoma other"
)
_FREE = {"site": frozenset(_SITES.split()), "histology": frozenset(_HISTOLOGIES.split())}


def report_text(record: Mapping[str, Value], *, withhold: Collection[str] = ()) -> str:
    """The record in lower-case sentences, always in the same order; empty where nothing may be said.

    Args:
        record: canonical fields (`client.data.case.Case.record`); fields without a template are ignored.
        withhold: canonical fields that the task's target forbids, such as ``hpv`` for a task that predicts it.
    """
    open_fields = {name: value for name, value in record.items() if name not in withhold}
    sentences = [_person(open_fields)] + [
        write(open_fields[name]) for name, write in _WRITERS.items() if name in open_fields
    ]
    return " ".join(f"{sentence} ." for sentence in sentences if sentence)


def clinical_vocabulary() -> set[str]:
    """Every word, and the full stop, that a report can hold."""
    phrases = [text for pair in _FLAGS.values() for text in pair]
    phrases += [text for options in _CHOICES.values() for text in options.values()]
    phrases += [_weight(float(kg)) for kg in WEIGHTS] + [_person({"age": float(age)}) for age in AGES]
    phrases += [_person({"gender": gender}) for gender in _PERSONS] + [
        f"{name} {w}" for name in _FREE for w in _FREE[name]
    ]
    return {word for phrase in phrases for word in phrase.split()} | {"."}


_PERSONS = {"female": "woman", "male": "man"}


def _person(record: Mapping[str, Value]) -> str:
    """'63 year old man in the sixties', or as much of it as is recorded."""
    who = _PERSONS.get(str(record.get("gender")), "")
    if "age" not in record:
        return who
    age = min(max(round(float(record["age"])), AGES[0]), AGES[-1])
    return f"{age} year old {who or 'patient'} in the {DECADES[min(age // 10, len(DECADES) - 1)]}"


def _weight(kilograms: Value) -> str:
    """Rounded to 5 kg, with a coarse word: 'medium build weight 75 kg'."""
    rounded = min(5 * round(float(kilograms) / 5), WEIGHTS[-1])
    build = next(word for limit, word in BUILDS if rounded < limit)
    return f"{build} build weight {rounded} kg"


def _flag(name: str) -> Callable[[Value], str]:
    return lambda value: _FLAGS[name][1 if float(value) else 0]


def _choice(name: str) -> Callable[[Value], str]:
    return lambda value: _CHOICES[name].get(value, "")


def _free(name: str) -> Callable[[Value], str]:
    def write(value: Value) -> str:
        words = [word for word in re.findall(r"[a-z]+", str(value).lower()) if word in _FREE[name]]
        return f"{name} {' '.join(words)}" if words else ""

    return write


_WRITERS: dict[str, Callable[[Value], str]] = {
    "weight_kg": _weight,
    "performance_status": _choice("performance_status"),
    "tobacco": _flag("tobacco"),
    "alcohol": _flag("alcohol"),
    "hpv": _flag("hpv"),
    "site": _free("site"),
    "histology": _free("histology"),
    "grade": _choice("grade"),
    "t_stage": _choice("t_stage"),
    "n_stage": _choice("n_stage"),
    "m_stage": _choice("m_stage"),
    "treatment": _choice("treatment"),
    "chemotherapy": _flag("chemotherapy"),
    "radiotherapy": _flag("radiotherapy"),
    "surgery": _flag("surgery"),
}
REPORTED = frozenset({"age", "gender", *_WRITERS})  # fields of which a report may hold a word
