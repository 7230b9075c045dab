"""Release record: over whom a center has answered which exact question, so that no two answers differ by a few.

An exact answer (moments, Gram and Newton sums, label sums, histograms, scores) is a sum: two of them over case sets
that differ by 1 to minimum - 1 patients say what those patients add, and so do more of them in combination. So the same
question is answered again over a set that was answered before: newcomers wait until enough have come. After an erasure
there is no such set any more, and exact answers are refused until the difference suffices; training goes on. A set that
differs for another reason (a step that needs another image) leaves out as many more as it takes.

The record stands in the vault, append-only and hash-chained, and names nobody: a patient is a keyed hash of the ID.
With a minimum of 1 there is nothing to keep and nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from client.data.case import Case
from client.privacy.combinations import tells_of_few
from client.vault.cohort import hashed_id, read_cohort
from client.vault.ending import BEGUN, append_noted, check_end, version_of
from client.vault.lock import alone
from client.vault.vault import VaultError
from common.errors import FedgraftError, PolicyRefusal
from common.store.ledger import Ledger

FILE = "released.jsonl"
ANSWERED = "answered"
DIFFERENCE = "declined.difference"
TARGET = "target|"  # before a target: its sums are the same in rows and in labels
MOST_LEFT_OUT = 4  # times the minimum: patients that a set leaves out to differ by enough


@dataclass(frozen=True)
class Question:
    """What an exact answer is about; two of a kind that share anything are the same question.

    Args:
        kind: ``rows`` (moments, Gram and Newton sums), ``labels`` (label sums, histograms) or ``scores``.
        about: columns of the rows, the targets that rows or labels are summed with, or what a task answers.
    """

    kind: str
    about: frozenset[str]

    def meets(self, other: Question) -> bool:
        """Whether two answers could be subtracted from one another: both over a column, or over a target."""
        shared = self.about & other.about
        return bool(shared) if self.kind == other.kind else any(one.startswith(TARGET) for one in shared)


@dataclass(frozen=True)
class Answered:
    """One set of patients (hashed IDs) over which a question was answered."""

    question: Question
    patients: frozenset[str]


@dataclass(frozen=True)
class Record:
    """What the file says; a key for the moment where there is none."""

    key: bytes
    answered: tuple[Answered, ...] = ()

    def hashed(self, patient: str) -> str:
        """The patient's hashed ID."""
        return hashed_id(self.key, patient)


@dataclass(frozen=True)
class Chosen:
    """Over whom a question is answered.

    Args:
        cases: of those asked about, in their order.
        waiting: how many wait until enough have come.
    """

    cases: list[Case] = field(default_factory=list)
    waiting: int = 0


def chosen(
    question: Question,
    cases: Sequence[Case],
    *,
    vault: Path,
    minimum: int,
    keep: bool = True,
    all_or_none: bool = False,
) -> Chosen:
    """Over whom of the cases the question may be answered; that is on record before the answer is made.

    Args:
        keep: False looks only.
        all_or_none: leave nobody out but newcomers who wait: of a subgroup that would be a choice.

    Raises:
        PolicyRefusal: the cases differ by a few from those of an earlier answer, and there is no other set.
        VaultError: the record cannot be read.
    """
    if len(cases) < minimum or minimum <= 1:  # nothing leaves of so few, or nothing has to be kept
        return Chosen(list(cases))
    with alone(vault / FILE):
        record = read_record(vault)
        gone = read_cohort(vault).erased  # by the same key: an order is placed in the cohort before it is answered
        by_hash = {record.hashed(case.patient): case for case in cases}
        asked = frozenset(by_hash)
        found = settled(question, asked, record.answered, minimum=minimum, erased=gone, all_or_none=all_or_none)
        if keep and Answered(question, found) not in record.answered:
            _append(vault, record, Answered(question, found))
    return Chosen([case for hashed, case in by_hash.items() if hashed in found], len(by_hash) - len(found))


def settled(
    question: Question,
    patients: frozenset[str],
    answered: Sequence[Answered],
    *,
    minimum: int,
    erased: Collection[str] = (),
    all_or_none: bool = False,
) -> frozenset[str]:
    """The largest suitable set of these patients that differs from every earlier one by nobody or by enough.

    Args:
        all_or_none: without `_fewer` and without earlier sets that leave out more than newcomers.

    Raises:
        PolicyRefusal: there is none.
    """
    if Answered(question, patients) in answered:
        return patients
    histories = _histories(question, answered)
    earlier = sorted({one for history in histories for one in history}, key=sorted)
    if _is_apart(patients, histories, minimum):
        return patients
    again = [one for one in earlier if one <= patients and _is_apart(one, histories, minimum)]
    near = [one for one in again if len(patients - one) < minimum]  # only newcomers make the difference: they wait
    if near:
        return max(near, key=lambda one: (len(one), sorted(one)))
    lost = any((one - patients) & set(erased) for one in earlier if 0 < len(one ^ patients) < minimum)
    fewer = None if lost or all_or_none else _fewer(patients, earlier, histories, minimum)
    others = [] if all_or_none else [*again, fewer]
    candidates = [one for one in others if one is not None and len(one) >= minimum]
    if lost or not candidates:
        raise PolicyRefusal(
            DIFFERENCE,
            f"An exact answer over these {len(patients)} patients differs from an earlier one by fewer than {minimum}"
            f"{' since a patient was erased' if lost else ''}: it would tell of them. Training goes on; exact sums "
            f"are answered again once {minimum} patients or more make the difference.",
        )
    return max(candidates, key=lambda one: (len(one), sorted(one)))


def waiting_at(vault: Path, cases: Sequence[Case], *, minimum: int) -> int:
    """How many patients no exact answer was ever over, where there was one and they are too few to be told of."""
    if minimum <= 1 or not (vault / FILE).exists():
        return 0
    record = read_record(vault)
    seen = frozenset().union(*(answer.patients for answer in record.answered))
    new = sum(record.hashed(case.patient) not in seen for case in cases)
    return new if seen and new < minimum else 0


def read_record(vault: Path) -> Record:
    """The record, with the cohort's key where there is none yet. Raises VaultError where it is damaged."""
    path = vault / FILE
    try:
        version = version_of(path)
    except (FedgraftError, AttributeError, FileNotFoundError) as error:
        raise _unreadable(path, error) from error
    return Record(read_cohort(vault).key) if version is None else _read(*version)


@lru_cache(maxsize=64)
def _read(path: Path, size: int, changed: int, end: tuple[tuple[str, Any], ...]) -> Record:
    """Size and time of the last change decide whether it is read again."""
    try:
        events = Ledger(path).events()
        check_end(path, events, dict(end))
        key = next(bytes.fromhex(event["key"]) for event in events if event["kind"] == BEGUN)
        return Record(key, tuple(_answered(event) for event in events if event["kind"] == ANSWERED))
    except (FedgraftError, OSError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> VaultError:
    return VaultError(
        f"{path}, which says over whom exact sums were answered, cannot be read ({error}). Restore it from a backup"
        " of the vault: without it two answers could differ by one patient."
    )


def _answered(event: dict) -> Answered:
    return Answered(Question(str(event["asked"]), frozenset(event["about"])), frozenset(event["patients"]))


def _append(vault: Path, record: Record, answer: Answered) -> None:
    asked = {"asked": answer.question.kind, "about": sorted(answer.question.about)}
    event = {**asked, "patients": sorted(answer.patients)}
    append_noted(vault / FILE, ANSWERED, event, first={"key": record.key.hex()})


History = frozenset[frozenset[str]]  # the sets over which one column was answered


def _histories(question: Question, answered: Sequence[Answered]) -> set[History]:
    """What was answered of each thing that the question is about."""
    same = [answer for answer in answered if answer.question.meets(question)]
    return {frozenset(a.patients for a in same if about in a.question.about) for about in question.about}


def _is_apart(one: frozenset[str], histories: Collection[History], minimum: int) -> bool:
    """Whether no combination of the answers, this one among them, is a sum over 1 to minimum - 1 patients."""
    return not any(tells_of_few([*history, one], minimum) for history in histories)


def _fewer(
    patients: frozenset[str], earlier: Sequence[frozenset[str]], histories: Collection[History], minimum: int
) -> frozenset[str] | None:
    """The patients without as many others as it takes, one by one in the order of their hashes."""
    fewer = patients
    for _ in range(MOST_LEFT_OUT * minimum):
        if len(fewer) < minimum or _is_apart(fewer, histories, minimum):
            break
        nearest = min(earlier, key=lambda one: (len(one ^ fewer) or len(fewer), sorted(one)))
        fewer -= {min(fewer & nearest or fewer)}
    return fewer if len(fewer) >= minimum and _is_apart(fewer, histories, minimum) else None
