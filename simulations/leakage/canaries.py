"""Canaries: one training run of the product's own DP-SGD in which half of them took part, and code that is wrong.

A canary is a patient whose gradient is along a direction of its own and ten times as long as may be. Fair coins say
who takes part; the attacker sees every noised gradient and looks along each direction. Sampling, clipping, noise and
divisor are `client.privacy.dp_sgd`'s. Noise comes from a known seed: nobody's data are here, and what is drawn so is
stamped "not private".

Each fault is one that other systems shipped: half the noise, no clipping, none at all, and a divisor made from the true
number of patients, which a neighboring cohort shows to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from client.privacy.dp_sgd import INSIDE, NOISE, SAMPLING, DpSgd
from client.privacy.streams import Stream, key_of, known_secret
from common.privacy.accounting import epsilon
from common.privacy.plan import Plan
from simulations.leakage.bounds import counted_bound, normal_bound

STAMP = "not private: noise of a known seed, on canaries and on nobody's data"
LOUD = 10.0  # times the longest gradient that one patient may have


@dataclass(frozen=True)
class Audited:
    """What one run says of some code.

    Args:
        claimed: the plan's epsilon.
        counted, normal: lower bounds of the true one (`simulations.leakage.bounds`).
    """

    code: str
    claimed: float
    counted: float
    normal: float
    stamp: str = STAMP

    @property
    def is_caught(self) -> bool:
        """Whether the claim is refuted."""
        return max(self.counted, self.normal) > self.claimed


def half_noise(plan: Plan) -> Plan:
    """Half as much noise as the plan says."""
    return replace(plan, noise=plan.noise / 2)


def no_clipping(plan: Plan) -> Plan:
    """Noise of the plan's length on gradients of any length."""
    return replace(plan, clip=plan.clip * 1e6, noise=plan.noise / 1e6)


def no_noise(plan: Plan) -> Plan:
    """Clipping alone."""
    return replace(plan, noise=0.0)


CODES: dict[str, Callable[[Plan], Plan]] = {
    "as shipped": lambda plan: plan,
    "half the noise": half_noise,
    "no clipping": no_clipping,
    "no noise": no_noise,
}


def audit(plan: Plan, *, canaries: int = 256, seed: int = 0, codes: dict[str, Callable[[Plan], Plan]] | None = None,
          ) -> list[Audited]:  # fmt: skip
    """One run for each code.

    Args:
        plan: what is claimed; one round holds all its draws.
    """
    claimed = epsilon([plan.release], plan.delta)
    found = []
    for name, broken in (codes or CODES).items():
        scores, took_part = run_of(broken(plan), canaries=canaries, seed=seed, length=LOUD * plan.clip)
        counted, normal = (bound(scores, took_part, plan.delta) for bound in (counted_bound, normal_bound))
        found.append(Audited(name, claimed, counted, normal))
    return found


def run_of(plan: Plan, *, canaries: int, seed: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """The attacker's scores (m,) after one run, and who took part, bool (m,).

    Args:
        length: of a canary's gradient.
    """
    took_part = np.random.default_rng(seed).random(canaries) < 0.5
    here = np.flatnonzero(took_part)
    job = _job(canaries)
    scores = np.zeros(canaries)
    for gradient in _gradients(plan, job, here, seed, length=length):
        scores += gradient * plan.batch
    return scores, took_part


def _gradients(plan: Plan, job: Any, here: np.ndarray, seed: int, *, length: float) -> Iterator[np.ndarray]:
    """What leaves in each draw of a run over the canaries that are here."""
    parameter = job.model.named_trainable_parameters()["direction"]

    def learn(job: Any, place: int) -> None:
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad[place] = length

    noise = _Canaries(plan, here, seed)
    cases = SimpleNamespace(cases=[SimpleNamespace(patient=str(place)) for place in here])
    for draw in noise.batches(None, cases, None):  # type: ignore[arg-type]
        noise.learn(job, draw, learn)  # type: ignore[arg-type]
        yield parameter.grad.numpy().astype(np.float64)


def known_streams(seed: int, question: Mapping[str, object] | None = None) -> list[Stream]:
    """The three streams of DP-SGD, from a seed that everybody knows."""
    return [Stream(key_of(known_secret(seed), question or {}, purpose)) for purpose in (SAMPLING, NOISE, INSIDE)]


class _Canaries(DpSgd):
    """The product's draws, whose items are canaries in the place of crops."""

    def __init__(self, plan: Plan, here: np.ndarray, seed: int):
        super().__init__(plan, *known_streams(seed))
        self._here = here

    def _items(self, order: Any, cases: Any, model: Any, places: list[int]) -> Iterator[Any]:
        yield from (int(self._here[place]) for place in places)


def _job(canaries: int) -> Any:
    """What `DpSgd.learn` looks at of a job."""
    parameter = nn.Parameter(torch.zeros(canaries, dtype=torch.float64))
    model = SimpleNamespace(named_trainable_parameters=lambda: {"direction": parameter}, trained_parts={"direction"})
    return SimpleNamespace(model=model, optimizer=torch.optim.SGD([parameter], lr=1.0))


# --------------------------------------------------------------------------------------------- neighboring cohorts


def secret_divisor(plan: Plan, patients: int) -> Plan:
    """A plan whose divisor follows from how many patients there truly are, as a loader that knows them makes it."""
    return replace(plan, batch=max(int(patients / -(-patients // plan.batch)), 1), cohort=patients)


def tells_neighbors_apart(plan_of: Callable[[int], Plan], patients: int, *, seed: int = 0) -> bool:
    """Whether cohorts of n and n - 1 patients get noise of another scale: gradients are nothing, so what leaves is the
    noise alone, from the same stream.

    Args:
        plan_of: the code's plan for a true number of patients; the product's does not look at it.
    """
    releases = []
    for count in (patients, patients - 1):
        quiet = replace(plan_of(count), draws=1)
        (released,) = _gradients(quiet, _job(16), np.arange(0), seed, length=0.0)
        releases.append(released)
    return not np.array_equal(releases[0], releases[1])
