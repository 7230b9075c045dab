"""What the tables say beside the images: what was not read, ages and outcomes that nobody has, copies of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from client.center.config import CenterConfig
from client.data.case import Case
from client.data.hecktor.tables import Rows, read_tables
from client.doctor.finding import NOTE, WARNING, Finding, from_sentence
from common.data.batch import CT, EHR, RECORD
from common.errors import DataError

ENOUGH = 4  # patients, below which nothing is said about all of them together
NEWBORN = 1.0  # years; 0 stands for "unknown" in many tables
FILLERS = (99.0, 98.0, 88.0)  # likewise
EARLY_DAYS, LATE_DAYS = 150.0, 600.0
SOME = 0.15  # of the censored patients, from which on short times are odd


def check_tables(config: CenterConfig, cases: Sequence[Case]) -> Iterator[Finding]:
    """Everything about the tables that stops nothing."""
    try:
        rows = read_tables(Path(config.root), center=config.code, mapping=config.mapping or None)
    except (DataError, OSError):
        return  # `survey` has said why
    if rows.read:
        yield Finding(NOTE, "records", f"Tables that are read: {', '.join(rows.read)}.")
    for sentence in rows.odd:
        yield _warning(sentence)
    for sentence in rows.notes:
        yield Finding(NOTE, "records", sentence)
    yield from _modalities(config, cases)
    yield from _coverage(rows, cases)
    yield from _fillers(cases)
    yield from _outcomes(cases)


def _warning(sentence: str) -> Finding:
    as_error = from_sentence(sentence, "records")
    return Finding(WARNING, "records", as_error.what, as_error.remedy)


def _coverage(rows: Rows, cases: Sequence[Case]) -> Iterator[Finding]:
    imaged = [case for case in cases if CT in case.images]
    if not rows.read:
        yield Finding(
            WARNING,
            "records",
            "No table was read: no patient has a record or an outcome.",
            "Put the clinical table below the data folder, as comma-separated text.",
        )
        return
    absent = [case.patient for case in imaged if case.patient not in rows.centers]
    if absent:
        yield Finding(
            WARNING,
            "records",
            f"{len(absent)} patients with images stand in no table.",
            "Check the spelling of their IDs in the tables.",
            tuple(absent),
        )


def _modalities(config: CenterConfig, cases: Sequence[Case]) -> Iterator[Finding]:
    """Names in center.yaml that no image has."""
    seen = {name for case in cases for name in case.images}
    unused = [name for name in config.modalities if name not in (*seen, EHR, RECORD)]
    if seen and unused:
        yield Finding(
            NOTE, "cohort", f"modalities in center.yaml names {', '.join(unused)}, which no patient here has."
        )


def _fillers(cases: Sequence[Case]) -> Iterator[Finding]:
    ages = {case.patient: float(case.record["age"]) for case in cases if "age" in case.record}
    newborn = tuple(patient for patient, age in ages.items() if age < NEWBORN)
    if newborn:
        yield Finding(
            WARNING,
            "records",
            f"{len(newborn)} patients have an age of 0: is it unknown?",
            "Leave the cell empty where the age is unknown.",
            newborn,
        )
    for filler in FILLERS:
        same = tuple(patient for patient, age in ages.items() if age == filler)
        if len(same) >= 2:
            yield Finding(
                WARNING,
                "records",
                f"{len(same)} patients have an age of {filler:g}: is it unknown?",
                "Leave the cell empty where the age is unknown.",
                same,
            )


def _outcomes(cases: Sequence[Case]) -> Iterator[Finding]:
    known = [case for case in cases if case.event is not None and case.days is not None]
    if not known:
        return
    at_zero = tuple(case.patient for case in known if case.days == 0)
    if at_zero:
        yield _odd(f"{len(at_zero)} patients have a follow-up of 0 days", "Check when follow-up begins.", at_zero)
    if len(known) < ENOUGH:
        return
    days = np.array([case.days for case in known], dtype=float)
    events = Counter(case.event for case in known)
    if len(events) == 1:
        every = "an event" if 1 in events else "no event"
        yield _odd(
            f"All {len(known)} patients with an outcome have {every}", "Check how events are coded (1 event, 0 none)."
        )
    if len(set(days.tolist())) == 1:
        yield _odd(f"All times of follow-up are {days[0]:g} days", "Check which column was exported.")
    censored = days[[case.event == 0 for case in known]]
    early = tuple(case.patient for case in known if case.event == 0 and float(case.days or 0) < EARLY_DAYS)
    late = censored[censored >= EARLY_DAYS]
    if len(censored) >= ENOUGH and len(early) >= SOME * len(censored) and len(late) and np.median(late) > LATE_DAYS:
        yield _odd(
            f"{len(early)} patients without an event were followed for less than {EARLY_DAYS:g} days, the others for "
            f"{np.median(late):.0f} in the median: were months entered for some",
            "Enter days for all, or the unit in the mapping.",
            early,
        )


def _odd(what: str, remedy: str, patients: tuple[str, ...] = ()) -> Finding:
    end = "?" if "were months" in what else "."
    return Finding(WARNING, "records", what + end, remedy, patients)
