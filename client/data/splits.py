"""Who trains, validates and tests: by patient, from a keyed hash of the ID, so that no list of IDs is exchanged.

Within a stratum (center, event) patients stand in the order of HMAC-SHA256(seed, ID), and each goes to the stratum's
emptiest fold. Patients with an event go upwards from the center's first fold, those without downwards from just below
it: the two never wait for each other, yet together they reach every fold. Who has a place keeps it, and those who
come later are dealt by the same rule: a center's vault stores the places (`client.vault.folds`). The k test folds
partition the cases.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from client.data.case import Case
from common.config.run import PARTS, Split
from common.errors import ConfigError

STRATA = (1, 0, None)  # by event, in the order in which they are dealt
Places = dict[str, "Place"]  # by patient


@dataclass
class Deal:
    """How a center's patients are split, whichever fold tests."""

    seed: int = 0
    folds: int = 5
    validation: float = 0.2  # share of the patients who do not test
    everywhere: bool = True  # at least one of them at every center that has two


@dataclass(frozen=True)
class Place:
    """A patient's fold, and the other folds beside whose test the patient validates."""

    fold: int
    validates: tuple[int, ...] = ()

    def part(self, fold: int) -> str:
        """On which side the patient is where ``fold`` tests."""
        return "test" if fold == self.fold else "validation" if fold in self.validates else "train"


def deal_of(split: Split) -> Deal:
    """A split without the fold that tests. Raises ConfigError where it is none."""
    if not (split.folds >= 2 and 0 <= split.fold < split.folds and 0 <= split.validation < 1):
        raise ConfigError(
            f"data.split asks for fold {split.fold} of {split.folds} and a validation share of {split.validation}; it "
            "needs two folds or more, a fold below their number and a share from 0 to below 1."
        )
    return Deal(split.seed, split.folds, split.validation, split.everywhere)


def split_cases(cases: Sequence[Case], *, split: Split) -> dict[str, list[Case]]:
    """Disjoint parts that together hold every case, each in the order of ``cases``, as centers that see all of these
    for the first time deal them.

    Give every patient of a center, and keep those that a step can use afterwards: a patient who tests one step must not
    train another. With three folds or more, every center with at least as many cases as folds has one or more in each
    part. A center with fewer is in the test part of some folds only (else folds would overlap), and still trains and
    validates.
    """
    deal = deal_of(split)
    places: Places = {}
    for center in sorted({case.center for case in cases}):
        places |= deal_places([case for case in cases if case.center == center], deal, known={})
    return {name: [case for case in cases if places[case.patient].part(split.fold) == name] for name in PARTS}


def deal_places(cases: Sequence[Case], deal: Deal, *, known: Mapping[str, Place]) -> Places:
    """Places for the patients of one center that have none yet.

    Args:
        cases: all of the center's patients; balance is counted among them.
        known: places by patient; they stay as they are.
    """
    table = _Table(cases, deal, known)
    for event in STRATA:
        for patient in table.newcomers[event]:
            table.folds[patient] = _emptiest(table, event)
    validates: dict[str, list[int]] = {p: [] for patients in table.newcomers.values() for p in patients}
    for fold in range(deal.folds):
        for patient in _validating(table, fold):
            validates[patient].append(fold)
    return {patient: Place(table.folds[patient], tuple(beside)) for patient, beside in validates.items()}


@dataclass
class _Table:
    """A center's patients while they are dealt."""

    cases: Sequence[Case]
    deal: Deal
    known: Mapping[str, Place]
    folds: dict[str, int] = field(init=False)  # by patient, of those who have one so far

    def __post_init__(self) -> None:
        self.folds = {case.patient: self.known[case.patient].fold for case in self.cases if case.patient in self.known}

    @cached_property
    def strata(self) -> dict[int | None, list[str]]:
        """Patients by event, in the order in which they are dealt."""
        order = {case.patient: _hash(case.patient, self.deal.seed) for case in self.cases}
        return {
            event: sorted((case.patient for case in self.cases if case.event == event), key=lambda p: order[p])
            for event in STRATA
        }

    @cached_property
    def newcomers(self) -> dict[int | None, list[str]]:
        """Those of each stratum who have no place."""
        return {event: [p for p in patients if p not in self.known] for event, patients in self.strata.items()}

    @cached_property
    def first(self) -> int:
        """Each center starts at its own fold, so that small centers' patients spread over all folds."""
        center = self.cases[0].center if self.cases else ""
        return int.from_bytes(_hash(f"center {center}", self.deal.seed)[:4], "big") % self.deal.folds


def _emptiest(table: _Table, event: int | None) -> int:
    """The fold with the fewest of a stratum; among such one without anybody, then the nearest in the stratum's way."""
    count = table.deal.folds
    own = Counter(table.folds[p] for p in table.strata[event] if p in table.folds)
    everyone = Counter(table.folds.values())
    way = [(table.first - 1 - i if event == 0 else table.first + i) % count for i in range(count)]
    return min(way, key=lambda fold: (own[fold], everyone[fold] > 0))


def _validating(table: _Table, fold: int) -> set[str]:
    """Newcomers who validate where ``fold`` tests: an even share of each stratum; at least one patient, at least one
    left to train, where there are two, unless that would move one who has a place."""
    share = Fraction(table.deal.validation).limit_denominator(1000)
    rest = {event: [p for p in table.strata[event] if table.folds[p] != fold] for event in (0, None, 1)}
    before = {
        p for patients in rest.values() for p in patients if p in table.known and fold in table.known[p].validates
    }
    everyone = [p for patients in rest.values() for p in patients]
    new = [p for p in everyone if p not in table.known]
    if table.deal.everywhere:
        chosen = {p for event, patients in rest.items() for p in _share_of(patients, table, before, share, event)}
        if share and new and not chosen | before and len(everyone) > 1:
            chosen = {new[0]}
    else:
        chosen = _by_chance(everyone, table, before, share, fold)
    return chosen - {new[-1]} if new and len(chosen | before) == len(everyone) else chosen


def _by_chance(patients: Sequence[str], table: _Table, before: set[str], share: Fraction, fold: int) -> set[str]:
    """Each 1/share-th newcomer of a center, strata one after the other, counted from where center and fold decide: a
    center has its share rounded up or down, by chance, and over many centers the shares add up."""
    center = table.cases[0].center if table.cases else ""
    start = Fraction(int.from_bytes(_hash(f"validation {center} {fold}", table.deal.seed)[:4], "big"), 1 << 32)
    seen, validating, chosen = sum(p in table.known for p in patients), len(before), set()
    for patient in (p for p in patients if p not in table.known):
        seen += 1
        if validating < (share * seen + start) // 1:
            validating += 1
            chosen.add(patient)
    return chosen


def _share_of(
    patients: Sequence[str], table: _Table, before: set[str], share: Fraction, event: int | None
) -> list[str]:
    """Each 1/share-th newcomer of a stratum, counted on from those who have a place. With an event the first one is
    the middle of the first interval, without one its beginning."""
    phase = Fraction(1, 2) if event == 1 else 1 - share
    known = [p for p in patients if p in table.known]
    seen, validating, chosen = len(known), len(before.intersection(known)), []
    for patient in patients:
        if patient in table.known:
            continue
        seen += 1
        if share and validating < (share * seen + phase) // 1:
            validating += 1
            chosen.append(patient)
    return chosen


def _hash(text: str, seed: int) -> bytes:
    return hmac.new(f"fedgraft split {seed}".encode(), text.encode(), hashlib.sha256).digest()
