"""The hospital's own split: fixed once in the vault, kept for whoever has a place, refused to whoever asks for another.

It is fixed by ``split:`` in center.yaml, or else by the first order that the hospital accepts. A patient has a place
from first sight, whatever a step can use, and keeps it: later steps, newcomers and erasures move nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from client.data.case import Case
from client.data.splits import Deal, Place, deal_of, deal_places
from client.vault.cohort import FILE, Cohort, fix, place, read_cohort
from client.vault.lock import alone
from common.config.run import Split
from common.errors import PolicyRefusal

FOREIGN = "declined.split"
MOST_FOLDS, MOST_VALIDATION = 20, 0.5  # that a first order may fix


def sides(
    cases: Sequence[Case], split: Split, *, vault: Path, declared: Deal | None = None, by: str = "", keep: bool = True
) -> dict[str, str]:
    """Patient -> train, validation or test, where the fold that the split names tests.

    Args:
        cases: everyone at the center, whatever a step can use of them.
        declared: what center.yaml says under ``split``.
        by: who asks, for the record, where this order is the first.
        keep: False looks only: what would be dealt is not stored.

    Raises:
        PolicyRefusal: the split is not this hospital's.
        VaultError: the stored one is damaged or lost.
    """
    asked = deal_of(split)
    cohort = read_cohort(vault)
    _check(asked, cohort, declared)
    places = _known(cases, cohort)
    if len(places) < len(cases):
        places = (
            _settled(cases, asked, vault, declared, by) if keep else places | deal_places(cases, asked, known=places)
        )
    return {case.patient: places[case.patient].part(split.fold) for case in cases}


def _known(cases: Sequence[Case], cohort: Cohort) -> dict[str, Place]:
    """Places by patient, of those who have one."""
    hashes = {case.patient: cohort.hashed(case) for case in cases} if cohort.places else {}
    return {patient: cohort.places[hashed] for patient, hashed in hashes.items() if hashed in cohort.places}


def _settled(cases: Sequence[Case], asked: Deal, vault: Path, declared: Deal | None, by: str) -> dict[str, Place]:
    """Everyone's places once newcomers' are stored; another process may have been first."""
    with alone(vault / FILE):
        cohort = read_cohort(vault)
        _check(asked, cohort, declared)
        if cohort.deal is None:
            fix(vault, asked, by="center.yaml" if declared is not None else by, key=cohort.key)
            cohort = read_cohort(vault)
        places = _known(cases, cohort)
        new = deal_places(cases, asked, known=places)
        if new:
            hashed = {case.patient: cohort.hashed(case) for case in cases}
            place(vault, {hashed[patient]: found for patient, found in new.items()}, key=cohort.key)
    return places | new


def _check(asked: Deal, cohort: Cohort, declared: Deal | None) -> None:
    own = cohort.deal or declared
    if cohort.deal is not None and declared is not None and cohort.deal != declared:
        raise PolicyRefusal(
            FOREIGN,
            f"center.yaml declares {in_words(declared)}, but this hospital's split is {in_words(cohort.deal)}, fixed "
            f"{told_when(cohort)}. Write that under split: in center.yaml, or {RELEASE}",
        )
    if own is not None and own != asked:
        raise PolicyRefusal(
            FOREIGN,
            f"The order asks for {in_words(asked)}; this hospital's split is {in_words(own)}, fixed "
            f"{told_when(cohort) if cohort.deal else 'by center.yaml'}. Ask the coordinator to set data.split to it, "
            f"or {RELEASE}",
        )
    if own is None and (asked.folds > MOST_FOLDS or asked.validation > MOST_VALIDATION):
        raise PolicyRefusal(
            FOREIGN,
            f"The first order would fix {in_words(asked)} as this center's split; it may have {MOST_FOLDS} folds and "
            f"a validation share of {MOST_VALIDATION} at most. To allow it, declare it under split: in center.yaml.",
        )


RELEASE = (
    "give it up with `python -m client split --release`: then patients who have trained may test, and no earlier "
    "adapter may be judged here again."
)


def in_words(deal: Deal) -> str:
    """As in ``seed 0, 5 folds, validation 0.2``."""
    over = "" if deal.everywhere else " over all centers"
    return f"seed {deal.seed}, {deal.folds} folds, validation {deal.validation:g}{over}"


def told_when(cohort: Cohort) -> str:
    """When and by whom the split was fixed."""
    return f"on {cohort.fixed_at[:10]} by {cohort.fixed_by or 'an order'}"


def said(cohort: Cohort, declared: Deal | None, test_folds: Sequence[int] | None) -> str:
    """The hospital's split in a sentence, for people.

    Args:
        test_folds: which may test; None for all.
    """
    which = "every fold" if test_folds is None else f"fold {', '.join(map(str, test_folds))}"
    own = cohort.deal or declared
    if own is None:
        return (
            f"The split is not fixed yet: the first order that this center accepts fixes it for good; {which} may test."
        )
    when = f"fixed {told_when(cohort)}" if cohort.deal else "declared in center.yaml, fixed at the first order"
    return f"The split is {in_words(own)}, {when}; {len(cohort.places)} patients have their place; {which} may test."
