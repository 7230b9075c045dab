"""How a step learned, by the scores of its rounds, of which larger is better, and what of earlier cases it replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

NEAR = 0.95  # of the best score


def rounds_to(scores: Sequence[float | None], *, share: float = NEAR) -> int | None:
    """The first round that is worth a share of the best one; 0: the start is. None where nothing is above 0.

    Args:
        scores: the start's, then each round's; None where a round was not validated.
    """
    best = max((score for score in scores if score is not None), default=0.0)
    if best <= 0:
        return None
    return next(number for number, score in enumerate(scores) if score is not None and score >= share * best)


def area_under(scores: Sequence[float | None]) -> float | None:
    """The area under the learning curve, as its mean height from the start to the last round that was validated.

    Between two validated rounds it is a straight line. None for fewer than two.
    """
    known = [(number, score) for number, score in enumerate(scores) if score is not None]
    if len(known) < 2:
        return None
    pairs = pairwise(known)
    area = sum((right - left) * (high + low) / 2 for (left, low), (right, high) in pairs)
    return area / (known[-1][0] - known[0][0])


def course_of(
    start: Mapping[str, Any] | None, rounds: Iterable[Mapping[str, Any]], *, sign: int = 1
) -> list[float | None]:
    """A step's pooled validation scores, its start first, of events as the ledger holds them.

    Args:
        start: the step's ``start_validated``, where there is one.
        rounds: its ``round_finished``, in order.
        sign: -1 for a metric of which less is better.
    """
    values = [(event or {}).get("validation", {}).get("pooled") for event in (start, *rounds)]
    return [None if value is None else sign * value for value in values]


def replayed(rounds: Iterable[Mapping[str, Any]], rehearses: Mapping[str, Any]) -> tuple[float, float]:
    """Cases that a step's rounds took from memories, and all that they trained on, each as often as it was taken.

    Args:
        rehearses: what the step's plan says: ``at``, the centers that take part with a memory alone, or ``share``, of
            the optimizer's steps those on kept cases, which the rounds' cases do not count.
    """
    trained = [
        (center, row) for event in rounds if not event.get("void") for center, row in event.get("train", {}).items()
    ]
    seen = {center: 0.0 for center, _ in trained}
    for center, row in trained:
        seen[center] += row.get("seen", row.get("cases", 0))
    new, share = sum(seen.values()), float(rehearses.get("share", 0.0))
    kept = sum(seen.get(center, 0.0) for center in rehearses.get("at", ()))
    beside = new * share / (1 - share)
    return kept + beside, new + beside


def burden(parts: Iterable[tuple[float, float]]) -> float | None:
    """Replayed cases of several steps as a share of all that they trained on; None where nothing was trained."""
    found = list(parts)
    everything = sum(every for _, every in found)
    return sum(kept for kept, _ in found) / everything if everything else None
