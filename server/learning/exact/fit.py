"""NewtonFit: a step solved from sums, question by question, with the ridge that the step's validation rule prefers.

The search is a pure function of the answers (`common.exact.search`): a resumed run finds the stored ones by their
question and asks for the rest. A center that cannot answer leaves the fit, which begins again from the moments of those
that remain, as if it had never taken part; below the quorum the step fails and can be repeated.

Where the step declares several ridges, each is fitted exactly, the strongest first and every weaker one from there, and
their states are scored on the centers' validation cases like a round's state. The best is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from common.errors import RoundFailed
from common.exact.columns import Layout, LinearModel, Scaling, add, scaling_from
from common.exact.objectives import LOSS, Objective
from common.exact.ridge import ridge_from_sums
from common.exact.search import Search, advance, begin, model_of, strongest_first
from common.exact.step import BETA, MEAN, SCALE, exact_part, objective_of, state_of, voxels_of
from common.exact.thresholds import ALL, MISSED, THRESHOLDS, TRUE, best_thresholds
from common.protocol.messages import State, Sums
from server.learning.core import quorum
from server.learning.exact.choice import Judge, chosen
from server.learning.exact.harmonized import corrections, own_scalings
from server.learning.exact.questions import Asking, LostCenters, Question
from server.learning.exact.rises import Rises


@dataclass(frozen=True)
class Fitted:
    """One ridge's exact fit."""

    penalty: float
    state: State
    questions: int  # asked for it, the moments not among them


class NewtonFit:
    """One step's fit over the centers that can be asked.

    Args:
        judge: what a state is worth on the centers' validation cases; asked where several ridges are declared.
    """

    def __init__(self, asking: Asking, layout: Layout, judge: Judge):
        self.asking, self.layout, self.judge = asking, layout, judge
        self.order, self.ledger = asking.order, asking.ledger
        self.own: dict[str, Scaling] = {}  # of harmonized features, each center's standardisation

    def run(self, centers: Sequence[str]) -> tuple[State, int]:
        """The fitted state and the number of questions. Raises RoundFailed below the quorum."""
        step, remaining = self.order.step, self.asking.standing(centers)
        needed = quorum(step.federation.quorum, len(centers))  # of all: those that a killed run lost, too
        while True:
            try:
                state, questions = self._fit(remaining)
            except LostCenters as lost:
                remaining = [center for center in remaining if center not in lost.reasons]
                reasons = ", ".join(f"{center}: {reason}" for center, reason in sorted(lost.reasons.items()))
                if len(remaining) < needed:
                    raise RoundFailed(
                        f"Step '{step.name}' is fitted from sums of at least {needed} centers; {len(remaining)} are "
                        f"left ({reasons}). The reasons are in the centers' own logs; start the same command again."
                    ) from lost
                self.ledger.append("newton_lost", {"step": step.name, "centers": lost.reasons})
                self.asking.narrator.say(f"          goes on without {reasons}")
                continue
            self.asking.forget(remaining)
            return state, questions

    def _fit(self, centers: Sequence[str]) -> tuple[State, int]:
        """The fitted state of the part, and how many questions it took."""
        step, objective = self.order.step, objective_of(self.order.step)
        told = self.asking.ask(Question(0), centers)
        own = corrections(self.asking, self.layout, centers, told)
        whose = self.asking.told_by(centers)
        moments = add(own[center].of_moments(one) if own else one for center, one in zip(whose, told, strict=True))
        if objective is None:
            model = ridge_from_sums(self.layout, moments, penalty=step.federation.penalty)
            return state_of(model, exact_part(step)[0]), 1
        self.own = own_scalings(own, scaling_from(moments))
        fits = list(self._each(objective, centers, moments))
        best = self._chosen(fits, centers) if len(fits) > 1 else fits[0]
        return best.state, 1 + sum(fit.questions for fit in fits)

    def _each(self, objective: Objective, centers: Sequence[str], moments: Sums) -> Iterator[Fitted]:
        """The exact fit of every declared ridge, the strongest first, each from where the one before ended."""
        spec, scaling = self.order.step.federation, scaling_from(moments)
        search = begin(objective.shape(len(self.layout.names)))
        for penalty in strongest_first([spec.penalty, *spec.penalties]):
            search = self._search(objective, centers, scaling, penalty, begin(search.asked.shape, at=search.asked))
            model = model_of(objective, self.layout, scaling, search)
            yield self._settled(model, penalty, search.rounds, centers)

    def _settled(self, model: LinearModel, penalty: float, asked: int, centers: Sequence[str]) -> Fitted:
        """A fitted model as a state, with the thresholds that a segmentation needs."""
        step, part = self.order.step, exact_part(self.order.step)[0]
        if voxels_of(step) is None:
            return Fitted(penalty, state_of(model, part), asked)
        question = Question(model.rounds, subset=THRESHOLDS, state=state_of(model, part))
        scores = add(self.asking.ask(question, centers))
        thresholds = best_thresholds(scores[TRUE], scores[ALL], missed=scores[MISSED])
        event = {"step": step.name, "scores": thresholds.tolist(), "penalty": penalty}
        self.ledger.append("thresholds_chosen", event)
        return Fitted(penalty, state_of(replace(model, bias=model.bias - thresholds), part), asked + 1)

    def _search(
        self, objective: Objective, centers: Sequence[str], scaling: Scaling, penalty: float, search: Search
    ) -> Search:
        step, weights = self.order.step, penalty * objective.penalised(len(self.layout.names))
        rises = Rises(self.asking.told_by(centers), problems=len(search.asked))
        while not search.done and not search.failed.any() and search.rounds < step.rounds:
            known = {MEAN: scaling.mean, SCALE: scaling.scale, BETA: search.asked}
            answers = self.asking.ask(Question(search.rounds + 1, known, own=self.own), centers)
            before, search = search, advance(search, add(answers), penalty=weights)
            rises.note(before, search, [answer[LOSS] for answer in answers])
        event = {"step": step.name, "settled": search.done, "rounds": search.rounds, "loss": search.loss.tolist()}
        self.ledger.append("newton_settled", {**event, "penalty": penalty, "rose": rises.centers})
        if not search.done:
            self.asking.forget(())  # the same answers would end the same command in the same way
            raise RoundFailed(_unsettled(step.name, search, centers, rises.centers))
        return search

    def _chosen(self, fits: Sequence[Fitted], centers: Sequence[str]) -> Fitted:
        """The fit whose state the centers' validation cases prefer."""
        worth = {fit.penalty: self.judge(fit.state, centers) for fit in fits}
        spec = self.order.step.federation
        penalty = chosen({ridge: found.score for ridge, found in worth.items()}, otherwise=spec.penalty)
        tried = {f"{ridge:g}": found.value for ridge, found in worth.items()}
        metric = next(found.metric for found in worth.values())
        event = {"step": self.order.step.name, "metric": metric, "tried": tried, "penalty": penalty}
        self.ledger.append("penalty_chosen", event)
        said = ", ".join(f"{ridge}: {'not told' if v is None else f'{v:.4f}'}" for ridge, v in tried.items())
        self.asking.narrator.say(f"          ridge {penalty:g} by validation {metric} ({said})")
        return next(fit for fit in fits if fit.penalty == penalty)


def _unsettled(step: str, search: Search, centers: Sequence[str], rose: Sequence[str]) -> str:
    """Why nothing is committed, and what to do."""
    text = (
        f"Step '{step}' has not settled after {search.rounds} questions to {', '.join(centers)}: nothing is committed, "
        "for a fit that is not exact must not be called so."
    )
    rising = f"its loss rose at {', '.join(rose)}" if rose else "nobody's own loss rose by more than rounding"
    if search.failed.any():
        return text + (
            f" However short a step the search took, {rising}; the sums of patients fall along some part of it. Ask "
            "there what was answered, or leave that center out (step.centers) in a new run; start the same command "
            "again if it was a fault."
        )
    overshot = f" At the last question {rising}." if rose else ""
    return text + overshot + " Give the step more rounds or a larger federation.penalty, in a new run."
