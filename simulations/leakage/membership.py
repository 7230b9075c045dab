"""Membership: from a fitted head alone, who was among its patients? LiRA (Carlini et al. 2022, arXiv 2112.03570).

Heads are logistic models on frozen features, fitted by the product's own noised search, or without noise: cheap enough
for many shadow models. Each is fitted on a random half of the same synthetic patients. One after the other is the
target, the others are the shadows: they say how a patient's confidence is distributed where it took part and where it
did not, and the likelihood ratio of both is the attacker's score.

A rate of false alarms of 1 in 1,000 can only be read off where there are at least 1,000 who did not take part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from client.privacy.streams import Stream, key_of, known_secret
from common.exact.objectives import Logistic, with_ones
from common.privacy.accounting import noise_for
from common.privacy.plan import SUMS, Plan
from simulations.studies.privacy.fit import fitted

ROUNDS, SETTLED = 2, 10  # questions of a fit with noise and without
PENALTY = 0.1
ALONE = "alone"  # the one center of a shadow
FLAT = 1e-3  # a spread below it is rounding, and a likelihood of it would be infinite
RATES = (0.001, 0.01)  # of false alarms


@dataclass(frozen=True)
class Membership:
    """How well members are told from others.

    Args:
        caught: rate of false alarms -> share of members that are found at it; None where it is not measurable.
        auc: chance that a member scores above another patient.
        others: how many scores of patients that took no part.
        is_sum: the coordinator saw sums of several centers alone.
    """

    epsilon: float
    caught: dict[float, float | None]
    auc: float
    others: int
    is_sum: bool = False


def synthetic(patients: int, columns: int, *, seed: int, more: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, P) of length 1 and labels (n,), a tenth of them wrong: what a head learns by heart.

    Args:
        more: further patients, behind the same ones.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(patients, columns))
    direction, wrong = rng.normal(size=columns), rng.random(patients) < 0.1
    x = np.concatenate([x, rng.normal(size=(more, columns))])
    wrong = np.concatenate([wrong, rng.random(more) < 0.1])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    label = x @ direction > 0
    return x, np.where(wrong, ~label, label).astype(float)


def measured(
    epsilon: float, *, patients: int = 100, columns: int = 32, models: int = 64, seed: int = 0, centers: int = 1
) -> Membership:
    """LiRA against heads at an epsilon; infinite: without noise.

    Args:
        patients: half of whom take part in each fit.
        models: each is the target once and a shadow otherwise.
        centers: whose sums a head is fitted on; the others' patients are known to take part, the first one's are told.
    """
    rng = np.random.default_rng([seed, 1])
    rest = (centers - 1) * (patients // 2)
    whole, labels = synthetic(patients, columns, seed=seed, more=rest)
    x, label = whole[:patients], labels[:patients]
    beside = {f"{ALONE}{n}": (own[0], own[1]) for n, own in enumerate(_in_parts(whole, labels, patients, centers))}
    took_part = np.stack([rng.permutation(patients) < patients // 2 for _ in range(models)])
    plan = _plan(epsilon, patients)
    heads = [_fitted(x[mine], label[mine], plan, 1000 * seed + n, beside) for n, mine in enumerate(took_part)]
    confidence = np.stack([_confidence(x, label, head) for head in heads])  # (models, patients)
    scores = np.stack([_ratio(confidence, took_part, target) for target in range(models)])
    return replace(rates(epsilon, scores[took_part], scores[~took_part]), is_sum=centers > 1)


def _in_parts(x: np.ndarray, label: np.ndarray, patients: int, centers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The other centers' patients, who stand behind the attacked center's."""
    for n in range(centers - 1):
        own = slice(patients + n * (patients // 2), patients + (n + 1) * (patients // 2))
        yield x[own], label[own, None]


def rates(epsilon: float, members: np.ndarray, others: np.ndarray) -> Membership:
    """Shares of members above what the given shares of others reach."""
    caught = {rate: _share_at(rate, members, others) if len(others) * rate >= 1 else None for rate in RATES}
    above = (members[:, None] > others[None, :]).mean() + (members[:, None] == others[None, :]).mean() / 2
    return Membership(epsilon, caught, float(above), len(others))


def _share_at(rate: float, members: np.ndarray, others: np.ndarray) -> float:
    """Members above the score that at most this share of the others exceeds."""
    allowed = math.floor(rate * len(others) + 1e-9)
    return float((members > np.sort(others)[::-1][allowed]).mean())


def _plan(epsilon: float, patients: int) -> Plan:
    """A question's plan over half of the patients as public bound; no noise at an infinite epsilon."""
    cohort = patients // 2
    delta = 1 / (10 * cohort)
    noise = 0.0 if math.isinf(epsilon) else noise_for(epsilon, delta, rate=1.0, draws=ROUNDS)
    return Plan(cohort, cohort, 1, 1.0, delta, noise, SUMS)


def _fitted(
    x: np.ndarray, label: np.ndarray, plan: Plan, seed: int, beside: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """A head (1, P + 1) from noised sums, as a federation of one center, or of several, fits it."""
    data = {ALONE: (x, label[:, None]), **beside}
    streams = {
        name: Stream(key_of(known_secret(seed), {"of": name} if n else {}, "shadow")) for n, name in enumerate(data)
    }
    questions = ROUNDS if plan.noise else SETTLED
    return fitted(Logistic(), data, dict.fromkeys(data, plan), streams, questions=questions, penalty=PENALTY)


def _confidence(x: np.ndarray, label: np.ndarray, head: np.ndarray) -> np.ndarray:
    """The log odds of each patient's own label."""
    found: np.ndarray = (2 * label - 1) * (with_ones(x) @ head[0])
    return found


def _ratio(confidence: np.ndarray, took_part: np.ndarray, target: int) -> np.ndarray:
    """Log likelihood of each patient's confidence at the target as a member's, less that as another's."""
    others = np.arange(len(confidence)) != target
    shadow, inside = confidence[others], took_part[others]
    return _likelihood(confidence[target], shadow, inside) - _likelihood(confidence[target], shadow, ~inside)


def _likelihood(value: np.ndarray, shadow: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Of a normal fitted to the chosen shadows' values of each patient."""
    count = np.maximum(chosen.sum(axis=0), 1)
    mean = np.where(chosen, shadow, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(chosen, (shadow - mean) ** 2, 0.0).sum(axis=0) / count)
    spread = np.maximum(spread, FLAT)
    found: np.ndarray = -np.log(spread) - ((value - mean) / spread) ** 2 / 2
    return found
