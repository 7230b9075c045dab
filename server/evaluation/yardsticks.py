"""Yardsticks of continual learning, from a score matrix; under one name the field has several, and each is named here.

R[t][j] is task j's score after step t, step j learns task j, and larger is better. Row 0 is before any training. A cell
is None where a task could not be scored, as one whose head did not exist yet; from its own step on each has a score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

Row = Sequence[float | None]
Scores = Sequence[Row]


@dataclass(frozen=True)
class Yardsticks:
    """What a square matrix says; None where its reference is missing or only one task was learned.

    Attributes:
        acc: mean score after the last step.
        bwt: mean change since a task was learned, of all but the last (Lopez-Paz & Ranzato, 2017).
        relative_bwt: the same, each as a share of the score when it was learned (Lifelong nnU-Net's script).
        fwt: mean gain over row 0 just before a task is learned, of all but the first (Lopez-Paz & Ranzato, 2017).
        forgetting: mean loss since a task's best row before the last; below 0 where all got better (Chaudhry, 2018).
        plasticity: mean score when learned, as a share of a dedicated adapter's.
        plasticity_joint: the same as a share of one adapter's that learned all tasks together.
        intransigence: mean of what a dedicated adapter scores more than the task when it was learned.
        intransigence_joint: the same against one that was trained on all tasks so far together (Chaudhry, 2018).
        stability: mean share of the score when learned that is left after the last step, of all but the last.
        forward_generalizability: mean score of tasks that a step has not learned yet; of them all, where it has one.
    """

    acc: float
    bwt: float | None
    relative_bwt: float | None
    fwt: float | None
    forgetting: float | None
    plasticity: float | None = None
    plasticity_joint: float | None = None
    intransigence: float | None = None
    intransigence_joint: float | None = None
    stability: float | None = None
    forward_generalizability: float | None = None


def yardsticks(
    scores: Scores,
    *,
    before: Row | None = None,
    dedicated: Sequence[float] | None = None,
    joint: Sequence[float] | None = None,
) -> Yardsticks:
    """All of them, of T tasks.

    Args:
        scores: (T, T), rows after each step; a metric of which less is better is negated first.
        before: row 0, (T,).
        dedicated: of each task, the score of an adapter that learned it alone, (T,).
        joint: of each task, the score of an adapter that learned all tasks up to it together (Chaudhry), or one of all
            tasks at all, whichever there is: say which, (T,).
    """
    last, learned = _known(scores[-1]), _known([row[task] for task, row in enumerate(scores)])
    earlier, start = range(len(scores) - 1), before or [None] * len(scores)
    return Yardsticks(
        acc=fmean(last),
        bwt=_mean([last[task] - learned[task] for task in earlier]),
        relative_bwt=_mean([_share(last[task] - learned[task], learned[task]) for task in earlier]),
        fwt=_mean([_less(scores[task - 1][task], start[task]) for task in range(1, len(scores))]),
        forgetting=FORGETTING["chaudhry"](scores),
        plasticity=_of(learned, dedicated),
        plasticity_joint=_of(learned, joint),
        intransigence=_behind(learned, dedicated),
        intransigence_joint=_behind(learned, joint),
        stability=_mean([_share(last[task], learned[task]) for task in earlier]),
        forward_generalizability=_mean([v for number, row in enumerate(scores) for v in row[number + 1 :]]),
    )


def _chaudhry(scores: Scores) -> float | None:
    """The best row before the last, less the last: below 0 for a task that never was as good as now."""
    return _mean([_less(_best(scores[:-1], task), scores[-1][task]) for task in range(len(scores) - 1)])


def _gem(scores: Scores) -> float | None:
    """GEM's and mammoth's: the best of all rows, the last one too, so that it never is below 0."""
    return _mean([_less(_best(scores, task), scores[-1][task]) for task in range(len(scores) - 1)])


def _avalanche(scores: Scores) -> float | None:
    """Avalanche's: the score when a task was learned, less the last."""
    return _mean([_less(scores[task][task], scores[-1][task]) for task in range(len(scores) - 1)])


FORGETTING: dict[str, Callable[[Scores], float | None]] = {
    "avalanche": _avalanche,
    "chaudhry": _chaudhry,
    "gem": _gem,
}
"""Definitions by whose they are; wherever fedgraft says forgetting, it is Chaudhry's."""


def of_matrix(
    matrix: Mapping[str, Mapping[str, float | None]], tasks: Sequence[str], *, learned: Mapping[str, str], sign: int = 1
) -> Yardsticks | None:
    """The yardsticks of some columns of a score matrix; None where a score is missing or one step learned several.

    Args:
        matrix: step -> column key -> value, as `server.evaluation.matrix.score_matrix` gives it; ``start`` is row 0.
        tasks: column keys in the order in which they were learned.
        learned: column key -> the step that learned it.
        sign: -1 for a metric of which less is better.
    """
    steps = [learned[task] for task in tasks]
    if len(set(steps)) < len(steps) or any(step not in matrix for step in steps):
        return None
    rows = [_row(matrix[step], tasks, sign) for step in steps]
    if any(row[task] is None for number, row in enumerate(rows) for task in range(number + 1)):
        return None
    return yardsticks(rows, before=_row(matrix.get("start", {}), tasks, sign))


def _row(cells: Mapping[str, float | None], tasks: Sequence[str], sign: int) -> list[float | None]:
    values = [cells.get(task) for task in tasks]
    return [None if value is None else sign * value for value in values]


def _known(row: Row) -> list[float]:
    """Scores that each task has from its own step on."""
    return [value for value in row if value is not None]


def _best(rows: Scores, task: int) -> float | None:
    return max(_known([row[task] for row in rows]), default=None)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _behind(learned: Sequence[float], reference: Sequence[float] | None) -> float | None:
    return None if reference is None else _mean([b - a for a, b in zip(learned, reference, strict=True)])


def _of(learned: Sequence[float], reference: Sequence[float] | None) -> float | None:
    return None if reference is None else _mean([_share(a, b) for a, b in zip(learned, reference, strict=True)])


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
