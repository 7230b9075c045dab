"""Who trains, validates and tests: by patient, from a keyed hash of the ID, so that no list of IDs is exchanged.

Within a stratum (center, event) patients stand in the order of HMAC-SHA256(seed, ID) and are dealt to the folds in
turn. Patients with an event are dealt upwards from the center's first fold, those without downwards from just below it:
the two never wait for each other, yet together they reach every fold. So a new patient of another stratum moves nobody,
and the k test folds partition the cases.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from client.data.case import Case
from common.config.run import Split
from common.errors import ConfigError

PARTS = ("train", "validation", "test")


def split_cases(
    cases: Sequence[Case], *, split: Split, required: Callable[[Case], bool] | None = None
) -> dict[str, list[Case]]:
    """Disjoint parts that together hold every case, each in the order of ``cases``.

    With three folds or more, every center with at least as many cases as folds has one or more in each part. A center
    with fewer is in the test part of some folds only (else folds would overlap), and still trains and validates.

    Args:
        required: keep only such cases in each part (those with the step's target). They are dropped after the split:
            a patient who tests one step must not train another that it starts from.
    """
    if not (split.folds >= 2 and 0 <= split.fold < split.folds and 0 <= split.validation < 1):
        raise ConfigError(
            f"data.split asks for fold {split.fold} of {split.folds} and a validation share of {split.validation}; it "
            "needs two folds or more, a fold below their number and a share from 0 to below 1."
        )
    part: dict[str, str] = {}
    for center in sorted({case.center for case in cases}):
        part |= _split_center([case for case in cases if case.center == center], center, split)
    kept = [case for case in cases if required is None or required(case)]
    return {name: [case for case in kept if part[case.patient] == name] for name in PARTS}


def _split_center(cases: Sequence[Case], center: str, split: Split) -> dict[str, str]:
    strata = {event: _ordered(cases, event, split.seed) for event in (1, 0, None)}
    folds = _folds(strata, center, split)
    rest = {event: [p for p in patients if folds[p] != split.fold] for event, patients in strata.items()}
    validation = _validation(rest, split)
    return {
        p: "test" if fold == split.fold else "validation" if p in validation else "train" for p, fold in folds.items()
    }


def _hash(text: str, seed: int) -> bytes:
    return hmac.new(f"fedgraft split {seed}".encode(), text.encode(), hashlib.sha256).digest()


def _ordered(cases: Sequence[Case], event: int | None, seed: int) -> list[str]:
    return sorted((case.patient for case in cases if case.event == event), key=lambda patient: _hash(patient, seed))


def _folds(strata: dict[int | None, list[str]], center: str, split: Split) -> dict[str, int]:
    """Fold by patient. Each center starts at its own fold, so that small centers' patients spread over all folds."""
    first = int.from_bytes(_hash(f"center {center}", split.seed)[:4], "big")
    folds = {p: (first + rank) % split.folds for rank, p in enumerate(strata[1])}
    folds |= {p: (first - 1 - rank) % split.folds for rank, p in enumerate(strata[0])}
    folds |= {p: (first + rank) % split.folds for rank, p in enumerate(strata[None])}
    return _filled(folds, split)


def _filled(folds: dict[str, int], split: Split) -> dict[str, int]:
    """Give an empty fold the last patient of the fullest one; needed only where some have no recorded outcome."""
    sizes = Counter(dict.fromkeys(range(split.folds), 0))
    sizes.update(folds.values())
    for fold in sorted(fold for fold, size in sizes.items() if size == 0):
        fullest = max(sizes, key=lambda f: (sizes[f], -f))
        if sizes[fullest] < 2:
            break
        moved = max((p for p, f in folds.items() if f == fullest), key=lambda p: _hash(p, split.seed))
        folds[moved] = fold
        sizes[fullest], sizes[fold] = sizes[fullest] - 1, 1
    return folds


def _validation(rest: dict[int | None, list[str]], split: Split) -> set[str]:
    """An even share of each stratum; at least one patient, and at least one left to train, where there are two."""
    share = Fraction(split.validation).limit_denominator(1000)
    chosen = {p for event, patients in rest.items() for p in _every(patients, share, early=event != 1)}
    everyone = [p for event in (0, None, 1) for p in rest[event]]
    if share and not chosen:
        chosen = set(everyone[:1]) if len(everyone) > 1 else set()
    return chosen - {everyone[-1]} if everyone and len(chosen) == len(everyone) else chosen


def _every(patients: Sequence[str], share: Fraction, *, early: bool) -> list[str]:
    """Each 1/share-th patient; ``early`` starts with the first one, else with the middle of the first interval."""
    phase = 1 - share if early else Fraction(1, 2)
    return [p for rank, p in enumerate(patients) if (share * (rank + 1) + phase) // 1 > (share * rank + phase) // 1]
