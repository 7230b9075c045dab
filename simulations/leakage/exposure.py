"""Exposure: does the aggregated adapter remember one patient's lesion that nobody else has?

One center of seven has a patient with a dark lesion, which nobody else has, and the label of a bright one: a
canary. After the rounds, the loss of the aggregated adapter on that patient, less that of an adapter which the attacker
trained on public patients (Watson et al. 2022, arXiv 2111.08440), is ranked among patients who could have been the
canary and were not (Carlini et al. 2019, arXiv 1802.08232): exposure is log2 of how many there are less log2 of the
rank. It is log2 of their number where the canary is remembered best, and 1.44 bits on average where nothing is
remembered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.privacy.dp_sgd import DpSgd
from common.privacy.accounting import noise_for
from common.privacy.plan import Plan
from simulations.leakage.canaries import known_streams
from simulations.leakage.crops import WIDTH, Encoder, crops, lesions
from simulations.leakage.sums import opened_state

Mean = Callable[[Sequence[Mapping[str, Tensor]]], dict[str, Tensor]]
CENTERS, ROUNDS, DRAWS, BATCH, COHORT, RATE = 7, 20, 3, 6, 12, 60.0
CANDIDATES = 255
CHANCE = 1.44  # log2(e): the mean of -log2 of a uniform rank


@dataclass(frozen=True)
class Exposed:
    """Exposure in bits, over some canaries: the mean, and how many were first of all."""

    epsilon: float
    bits: float
    most: float
    first: int
    canaries: int
    is_sum: bool = False


def measured(
    epsilon: float, *, canaries: int = 4, seed: int = 0, rounds: int = ROUNDS, is_sum: bool = False
) -> Exposed:
    """Exposure of canaries, each in a federation of its own, trained by the product's DP-SGD, or without noise.

    Args:
        is_sum: adapters are aggregated by secure sums.
    """
    encoder, plan, mean = Encoder(), _plan(epsilon, rounds), opened_state if is_sum else _mean
    ranks = [_rank(encoder, plan, mean, seed=1000 * seed + canary, rounds=rounds) for canary in range(canaries)]
    most = math.log2(CANDIDATES + 1)
    bits = sum(most - math.log2(rank) for rank in ranks) / canaries
    return Exposed(epsilon, bits, most, sum(rank == 1 for rank in ranks), canaries, is_sum)


def _plan(epsilon: float, rounds: int) -> Plan:
    delta = 1 / (10 * COHORT)
    if math.isinf(epsilon):  # neither noise nor a bound that any gradient here meets
        return Plan(COHORT, BATCH, DRAWS, 1e6, delta, 0.0)
    noise = noise_for(epsilon, delta, rate=BATCH / COHORT, draws=rounds * DRAWS, accountant="rdp")
    return Plan(COHORT, BATCH, DRAWS, 1.0, delta, noise)


def _rank(encoder: Encoder, plan: Plan, mean: Mean, *, seed: int, rounds: int) -> int:
    """The rank of what the canary's loss gained by training, 1 the most."""
    candidates, label = _candidates(encoder, seed)
    chosen = seed % len(candidates)
    data, public = (_patients(encoder, start + 100 * seed) for start in (50, 500_000))
    data[0] = (
        torch.cat([data[0][0], candidates[chosen : chosen + 1]]),
        torch.cat([data[0][1], label[chosen : chosen + 1]]),
    )
    adapter = _aggregated(data, plan, f"{seed}", mean, rounds=rounds)
    reference = _aggregated(public, _plan(math.inf, rounds), f"{seed}|public", _mean, rounds=rounds)
    with torch.no_grad():
        losses = [F.binary_cross_entropy_with_logits(m(candidates), label, reduction="none")[:, 0]
                  for m in (adapter, reference)]  # fmt: skip
        gained = losses[1] - losses[0]
    return 1 + int((gained > gained[chosen]).sum())


def _patients(encoder: Encoder, first: int) -> list[tuple[Tensor, Tensor]]:
    """Features and labels of every center's patients."""
    each = [crops(COHORT, seed=first + center) for center in range(CENTERS)]
    return [(encoder(volume), label) for volume, label in each]


def _candidates(encoder: Encoder, seed: int) -> tuple[Tensor, Tensor]:
    """Features of patients with a dark lesion each, and the label of a bright one, which contradicts all others."""
    volume, _ = crops(CANDIDATES + 1, seed=7000 + seed)
    dark = lesions(CANDIDATES + 1, generator=torch.Generator().manual_seed(8000 + seed), brightness=-3.0)
    return encoder(volume + dark), torch.ones(CANDIDATES + 1, 1)


def _mean(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([s[name] for s in states]).mean(dim=0) for name in states[0]}


def _aggregated(data: list[tuple[Tensor, Tensor]], plan: Plan, stream: str, mean: Mean, *, rounds: int) -> nn.Linear:
    """Rounds of local draws from one common state, and the mean of all centers' states."""
    common = nn.Linear(WIDTH, 1)
    for parameter in common.parameters():
        nn.init.zeros_(parameter)
    for round in range(rounds):
        states = [_trained(common, *own, plan, f"{stream}|{round}|{c}") for c, own in enumerate(data)]
        common.load_state_dict(mean(states))
    return common


def _trained(common: nn.Linear, x: Tensor, label: Tensor, plan: Plan, stream: str) -> dict[str, Tensor]:
    """One center's round."""
    head = nn.Linear(WIDTH, 1)
    head.load_state_dict(common.state_dict())
    optimizer = torch.optim.SGD(head.parameters(), lr=RATE)
    named = dict(head.named_parameters())
    model = SimpleNamespace(named_trainable_parameters=lambda: named, trained_parts={"head"})
    job: Any = SimpleNamespace(model=model, optimizer=optimizer)

    def learn(job: Any, place: int) -> None:
        F.binary_cross_entropy_with_logits(head(x[place : place + 1]), label[place : place + 1]).backward()

    noise = _OnFeatures(plan, *known_streams(0, {"of": stream}))
    cases: Any = SimpleNamespace(cases=[SimpleNamespace(patient=str(place)) for place in range(len(x))])
    for draw in noise.batches(None, cases, None):  # type: ignore[arg-type]
        noise.learn(job, draw, learn)  # type: ignore[arg-type]
        optimizer.step()
    return head.state_dict()


class _OnFeatures(DpSgd):
    """The product's draws, whose items are places in a table of features."""

    def _items(self, order: Any, cases: Any, model: Any, places: list[int]) -> Any:
        yield from places
