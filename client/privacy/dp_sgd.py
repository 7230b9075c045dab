"""DP-SGD at a center: patients drawn by Poisson sampling, one gradient of each, clipped, and noise on their sum.

What leaves after a round is a function of noised sums alone. Each draw takes every patient with the plan's public rate,
by itself; of each patient drawn, the gradients of all crops are added and clipped together (Abadi et al. 2016, with
the patient as the example); noise is added to their sum, which a public number divides. A draw of nobody is a step of
noise alone and counts as any other. Gradients are made one patient after the other, exact for every model and loss.

Neither the order of the draws, nor the crops, nor what drops out can be known to anybody else: all of it comes from
streams of the vault's secret. Losses, how many were drawn and which parts they reached stay here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from client.policy.policy import Ceiling
from client.privacy.noised.calibration import plan_at, score_plan_at
from client.privacy.spending import Entry, charge, check_fits, read_account
from client.privacy.streams import Stream, key_of, known_secret, secret_of
from client.training.batches import Cases, Item, one_batch
from client.training.job import Job, Learned
from common.backbones.base import tensors_digest
from common.config.load import step_to_json, to_json
from common.config.privacy import scores_are_noised
from common.model.adapted import AdaptedModel
from common.privacy.accounting import Release
from common.privacy.plan import SCORES, Plan
from common.protocol.messages import Order

SAMPLING, NOISE, INSIDE = "sampling", "noise", "crops and dropout"
Named = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class Draw:
    """One draw of patients: of each, the batches of one that hold its cases; nobody may have been drawn."""

    patients: Iterable[Iterable[Item]]


class DpSgd:
    """One round's draws and noise.

    Args:
        plan: the public numbers.
        sampling, noise, inside: streams that nobody else knows.
    """

    def __init__(self, plan: Plan, sampling: Stream, noise: Stream, inside: Stream):
        self.plan = plan
        self._sampling, self._noise, self._inside = sampling, noise, inside

    @property
    def counts(self) -> dict[str, int]:
        """What a reply tells of the round: the cohort's public bound, and how many steps the plan has."""
        return {"cases": self.plan.cohort, "batches": self.plan.draws}

    def batches(self, order: Order, cases: Cases, model: AdaptedModel) -> Iterator[Draw]:
        """The round's draws."""
        patients = by_patient(cases)
        for _ in range(self.plan.draws):
            taken = self._sampling.uniforms(len(patients)) < self.plan.rate
            drawn = [places for places, is_in in zip(patients, taken, strict=True) if is_in]
            yield Draw([self._items(order, cases, model, places) for places in drawn])

    def _items(self, order: Order, cases: Cases, model: AdaptedModel, places: list[int]) -> Iterator[Item]:
        for place in places:
            generator = torch.Generator().manual_seed(self._inside.seed())
            torch.manual_seed(self._inside.seed())  # dropout's; the run's seed is the coordinator's, too
            yield one_batch(order, cases, [place], model, generator=generator)

    def learn(self, job: Job, draw: Draw, learn: Callable[[Job, Item], Learned]) -> Learned:
        """Leave the noised mean gradient of a draw on the job's model; nothing else of the draw is told.

        Args:
            learn: leaves the plain gradient of one batch on the model.
        """
        named = job.model.named_trainable_parameters()
        total = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in named.items()}
        for items in draw.patients:
            own = _gradient_of(job, items, learn, named)
            for name, part in clipped(own, self.plan.clip).items():
                total[name] += part
        scale = self.plan.noise * self.plan.clip
        for name, parameter in named.items():
            noise = torch.from_numpy(self._noise.normals(parameter.numel())).reshape(parameter.shape)
            noised = (total[name] + scale * noise.to(parameter.device)) / self.plan.batch
            parameter.grad = noised.to(parameter.dtype)
        return Learned(parts=job.model.trained_parts)


def clipped(gradient: Mapping[str, Tensor], longest: float) -> dict[str, Tensor]:
    """One patient's gradient, float64, shortened to at most this length over all tensors together.

    A gradient that is not finite counts as none: no bound holds for it.
    """
    squares = sum((float(part.square().sum()) for part in gradient.values()), 0.0)
    norm = squares**0.5
    if not norm < float("inf"):
        return {name: torch.zeros_like(part) for name, part in gradient.items()}
    factor = min(1.0, longest / norm) if norm > 0 else 1.0
    return {name: part * factor for name, part in gradient.items()}


def by_patient(cases: Cases) -> list[list[int]]:
    """Positions of each patient's cases."""
    found: dict[str, list[int]] = {}
    for place, case in enumerate(cases.cases):
        found.setdefault(case.patient, []).append(place)
    return list(found.values())


def _gradient_of(
    job: Job, items: Iterable[Item], learn: Callable[[Job, Item], Learned], named: Named
) -> dict[str, Tensor]:
    """The sum of the gradients of one patient's batches, float64, where any reached the tensor."""
    found: dict[str, Tensor] = {}
    for item in items:
        job.optimizer.zero_grad(set_to_none=True)
        learn(job, item)
        for name, parameter in named.items():
            if parameter.grad is not None:
                own = parameter.grad.double()
                found[name] = found[name] + own if name in found else own
    return found


# ------------------------------------------------------------------------------------------------- what keys the noise


def check_step(order: Order, *, code: str, vault: Path, ceiling: Ceiling | None) -> None:
    """Raise PolicyRefusal where what is left of a step with ``privacy`` would pass the ceiling: it is not begun.

    Rounds and answers with scores that this run has charged for the step stand on the account, and count once.
    """
    if order.step.privacy is None or ceiling is None:
        return
    account, step = read_account(vault), order.step
    own = [entry for entry in account.charges if (entry.run, entry.step) == (order.run, step.name)]
    scored = [entry for entry in own if SCORES in entry.kinds]
    done = {entry.round for entry in own if SCORES not in entry.kinds}
    planned = [plan_at(vault, step, code).release] * max(step.rounds - len(done), 0)
    if scores_are_noised(step.privacy):
        plan = score_plan_at(vault, step, code)
        planned += [plan.release] * max(plan.answers - len(scored), 0)
    check_fits(account, planned, ceiling, step=step.name)


def charged(order: Order, cases: Cases, *, code: str, vault: Path, ceiling: Ceiling | None) -> DpSgd | None:
    """The order's round under its step's ``privacy``: on the account once this returns, and nothing drawn yet. None
    where the step asks for none.

    Args:
        ceiling: the hospital's; None where it sets none.

    Raises:
        PolicyRefusal: the round would pass the ceiling, or is one more than the step has.
        VaultError: the account or the vault's secret is damaged.
        ConfigError: no noise is enough.
    """
    if order.step.privacy is None:
        return None
    plan = plan_at(vault, order.step, code)
    streams = streams_of(
        order, cases, plan.release, (SAMPLING, NOISE, INSIDE), code=code, vault=vault, ceiling=ceiling,
        most=order.step.rounds,
    )  # fmt: skip
    return DpSgd(plan, *streams)


def streams_of(
    order: Order,
    cases: Cases,
    release: Release,
    purposes: Sequence[str],
    *,
    code: str,
    vault: Path,
    ceiling: Ceiling | None,
    most: int | None = None,
) -> list[Stream]:
    """A stream for each purpose of an order's question over these cases, once its release is on the account.

    Args:
        most: as `client.privacy.spending.charge` has it.

    Raises:
        PolicyRefusal: it would pass the ceiling, or is one too many.
        VaultError: the account or the vault's secret is damaged.
    """
    seed = order.step.privacy.noise_seed
    secret = secret_of(vault) if seed is None else known_secret(seed)
    question = question_of(order, cases, code=code)
    digest = key_of(secret, question, "account").hex()[:32]
    entry = Entry(order.run, order.step.name, order.round, digest, (release,), seed is not None)
    charge(vault, entry, ceiling, most=most)
    return [Stream(key_of(secret, question, purpose)) for purpose in purposes]


def question_of(order: Order, cases: Cases, *, code: str) -> dict[str, object]:
    """All that decides what the round's gradients are: the order, what of it a center goes on from, the patients."""
    asked = [step_to_json(order.step), order.base, to_json(order.backbone), order.mode, tensors_digest(order.state),
             tensors_digest(order.extra), *(f"{n}={v.tolist()}" for n, v in sorted(order.known.items()))]  # fmt: skip
    return {
        "run": order.run,
        "step": order.step.name,
        "round": order.round,
        "seed": order.seed,
        "since": order.since,
        "earlier": order.earlier,
        "center": code,
        "order": hashlib.sha256("\x1f".join(asked).encode()).hexdigest(),
        "cases": cases_digest(cases),
        **({"subset": order.subset} if order.subset else {}),
    }


_DIGESTS: WeakKeyDictionary[Cases, str] = WeakKeyDictionary()


def cases_digest(cases: Cases) -> str:
    """SHA-256 over what the patients are and what the model sees of them: noise must never be repeated over others."""
    if cases not in _DIGESTS:
        digest = hashlib.sha256()
        for place, case in enumerate(cases.cases):
            batch = cases.collate([place])
            digest.update(f"{case.patient}\x1f{case.center}\x1f".encode())
            for tensors in (batch.inputs, batch.present, batch.target):
                digest.update(tensors_digest({name: tensor.contiguous() for name, tensor in tensors.items()}).encode())
        _DIGESTS[cases] = digest.hexdigest()
    return _DIGESTS[cases]
