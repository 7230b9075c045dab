"""NoisedFit: a step solved from noised sums, with as many questions as it has rounds (`common.exact.noised`).

The search cannot ask whether a step was good, for that would be another release. So each step is one that cannot
overshoot: the Hessian at zero bounds every other, and what noise took from it is put back. A center that stops
answering leaves the fit, which goes on from where it stands: to begin again would draw from the others' patients anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from common.errors import RoundFailed
from common.exact.columns import Layout, LinearModel, Scaling, add
from common.exact.noised import noise_scales, noised_objective, spectral, step_from
from common.exact.objectives import HESSIAN
from common.exact.step import BETA, MEAN, SCALE, exact_part, state_of
from common.privacy.plan import plan_of
from common.protocol.messages import State, Sums
from server.learning.exact.questions import Asking, LostCenters, Question


@dataclass
class Standing:
    """Where a fit stands.

    Args:
        centers: that still answer.
        curvature: each one's Hessian at zero, as it left; under secure sums that of all together.
    """

    centers: list[str]
    beta: np.ndarray
    curvature: dict[str, np.ndarray] = field(default_factory=dict)


class NoisedFit:
    """One step's fit over the centers that can be asked."""

    def __init__(self, asking: Asking, layout: Layout):
        self.asking, self.layout = asking, layout
        self.step = asking.order.step
        self.objective = noised_objective(self.step)
        self.scaling = Scaling(np.zeros(len(layout.values)), np.ones(len(layout.values)))  # ranges are public

    def run(self, centers: Sequence[str]) -> tuple[State, int]:
        """The fitted state and the number of questions. Raises RoundFailed below the quorum."""
        step, columns = self.step, len(self.layout.names)
        everyone = sorted({*centers} | {*self._lost()})
        stands = Standing(everyone, np.zeros(self.objective.shape(columns)))
        needed = max(1, math.ceil(step.federation.quorum * len(everyone) - 1e-9))
        weights = step.federation.penalty * self.objective.penalised(columns)
        for round in range(step.rounds):
            sums = self._asked(stands, round, needed)
            stands.beta = step_from(stands.beta, sums, penalty=weights, floor=self._noise(stands.centers))
        self.asking.ledger.append("noised_fit", self._told(stands))
        self.asking.forget(stands.centers)
        weight, bias = self.objective.split(stands.beta, columns)
        model = LinearModel(self.layout, self.scaling, weight, bias, step.rounds)
        return state_of(model, exact_part(step)[0]), step.rounds

    def _lost(self) -> dict[str, int]:
        """Center -> the question from which on it is no part of the fit: a killed run asks the same points again, since
        the centers answer no others."""
        events = self.asking.ledger.events("newton_lost", step=self.step.name)
        return {center: int(event["round"]) for event in events for center in event["centers"]}

    def _asked(self, stands: Standing, round: int, needed: int) -> Sums:
        """The sums of one question over the centers that answer it, with the Hessian at zero of the same centers."""
        known = {MEAN: self.scaling.mean, SCALE: self.scaling.scale, BETA: stands.beta} if round else {}
        while True:
            lost = self._lost()
            stands.centers = [center for center in stands.centers if lost.get(center, round + 1) > round]
            if len(stands.centers) < needed:
                raise RoundFailed(
                    f"Step '{self.step.name}' is fitted from noised sums of at least {needed} centers; "
                    f"{len(stands.centers)} are left. The reasons are in the centers' own logs. The answers of a step "
                    "are given once: ask for it again in a new run."
                )
            try:
                answers = self.asking.ask(Question(round, known), stands.centers)
                break
            except LostCenters as gone:
                event = {"step": self.step.name, "round": round, "centers": gone.reasons}
                self.asking.ledger.append("newton_lost", event)
                self.asking.narrator.say(f"          goes on without {', '.join(sorted(gone.reasons))}")
        if round == 0:
            hessians = (answer[HESSIAN] for answer in answers)
            stands.curvature = dict(zip(self.asking.told_by(stands.centers), hessians, strict=True))
        total = add({name: one[name] for name in one if name != HESSIAN} for one in answers)
        return total | add({HESSIAN: stands.curvature[own]} for own in self.asking.told_by(stands.centers))

    def _noise(self, centers: Sequence[str]) -> float:
        """The largest eigenvalue that noise alone gives the centers' added Hessians."""
        plans = [plan_of(self.step, center) for center in centers]
        scales = [noise_scales(self.objective, plan, round=0)[HESSIAN] for plan in plans]
        return spectral(scales, self.objective.shape(len(self.layout.names))[1])

    def _told(self, stands: Standing) -> dict[str, object]:
        total = sum(np.linalg.eigvalsh(stands.curvature[own]) for own in self.asking.told_by(stands.centers))
        return {
            "step": self.step.name, "questions": self.step.rounds, "centers": stands.centers,
            "noise": float(f"{self._noise(stands.centers):.4g}"),
            "curvature": float(f"{float(np.max(total)):.4g}"),
        }  # fmt: skip
