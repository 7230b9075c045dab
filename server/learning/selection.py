"""Selection: which round of a step is kept, the start being round 0; for federations, baselines and tuning alike.

A round is worth its pooled validation value and, among equals, its validation loss; of rounds equal in both the latest
is kept, so that a trained state stays before the start that it equals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.metrics import LOWER_IS_BETTER


@dataclass(frozen=True, order=True)
class Score:
    """What a round is worth, larger is better: its validation value, then, of equals, its validation loss."""

    value: float
    minus_loss: float


def score_of(metric: str, value: float | None, loss: float | None) -> Score | None:
    """The worth of a validation value; None where there is no value."""
    if value is None:
        return None
    return Score(-value if metric in LOWER_IS_BETTER else value, 0.0 if loss is None else -loss)


def score_of_round(event: Mapping[str, Any]) -> Score | None:
    """The worth of a round as the ledger holds it (``round_finished``, ``start_validated``)."""
    validation = event["validation"]
    return score_of(validation["metric"], validation["pooled"], validation.get("loss"))


def best(scores: Sequence[Score | None]) -> int:
    """The position of the best score, of equals the latest; the last position where there is no score."""
    scored = [(score, position) for position, score in enumerate(scores) if score is not None]
    return max(scored)[1] if scored else len(scores) - 1


def best_round(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The round to keep, of rounds in their order as the ledger holds them."""
    return rounds[best([score_of_round(event) for event in rounds])]
