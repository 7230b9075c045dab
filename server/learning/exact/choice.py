"""Choice: which of several ridges a step keeps, by its validation rule and the centers' summed validation scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from common.data.modality_sets import validation_mode
from common.privacy.scores import scored_task
from common.protocol.messages import Order, State
from server.evaluation.scoring import Scorer
from server.learning.selection import Score, score_of
from server.learning.validation import summed_value


@dataclass(frozen=True)
class Worth:
    """What a state is worth on validation cases; None where no center may tell."""

    metric: str
    value: float | None

    @property
    def score(self) -> Score | None:
        """The same, larger is better."""
        return score_of(self.metric, self.value, None)


Judge = Callable[[State, Sequence[str]], Worth]


def judge_of(scorer: Scorer, order: Order) -> Judge:
    """The judge of a step's states: the metric that would choose its rounds, from sums over validation cases alone."""
    step, task = order.step, scored_task(order.step)
    metric = step.selection.metric or task.primary
    by_median = step.federation.guards.validation == "median"

    def judge(state: State, centers: Sequence[str]) -> Worth:
        asked = replace(order, state=state, round=0, subset="validation", mode=validation_mode(step))
        return Worth(metric, summed_value(task, scorer.sums(asked, task, centers), metric, by_median=by_median))

    return judge


def chosen(scores: Mapping[float, Score | None], *, otherwise: float) -> float:
    """The ridge with the best score, of equals the strongest; ``otherwise`` where none has a score."""
    known = [(score, penalty) for penalty, score in scores.items() if score is not None]
    return max(known)[1] if known else otherwise
