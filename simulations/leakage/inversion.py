"""Inversion: from one patient's gradient of the adapter, what did the crop look like?

The attacker is the coordinator: it knows the frozen encoder, the adapter and the label, sees what left of a draw of one
patient, and looks for a crop that would have made the same gradient (Geiping et al. 2020, arXiv 2003.14053: cosine and
total variation). What it finds is held against the true crop by PSNR and SSIM, and so is the nearest other crop of a
public set: an attacker that is no better than this baseline has learned nothing of the patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.privacy.dp_sgd import DpSgd, Draw
from common.privacy.accounting import noise_for
from common.privacy.plan import Plan
from simulations.leakage.canaries import known_streams
from simulations.leakage.crops import SIDE, WIDTH, Encoder, crops
from simulations.leakage.sums import opened_state

STEPS, TOTAL_VARIATION = 300, 1e-3
DRAWS, RATE, DELTA = 1, 0.1, 1e-3  # of the plan whose first draw is attacked: a draw of one patient in ten


@dataclass(frozen=True)
class Inverted:
    """Means over the attacked crops, of the attack and of the nearest other crop."""

    epsilon: float
    psnr: float
    ssim: float
    nearest_psnr: float
    nearest_ssim: float
    is_sum: bool = False

    @property
    def is_better(self) -> bool:
        """Whether the attack shows more of the patient than a crop of somebody else does."""
        return self.ssim > self.nearest_ssim and self.psnr > self.nearest_psnr


def measured(
    epsilon: float, *, patients: int = 4, public: int = 200, steps: int = STEPS, seed: int = 0, centers: int = 1
) -> Inverted:
    """The attack on each of some crops.

    Args:
        epsilon: of one draw at `RATE`; infinite: the gradient leaves as it is.
        public: crops of others that the attacker has.
        centers: in whose sum the gradient is, a patient of each; 1: it leaves by itself.
    """
    encoder, head = Encoder(), _head(seed)
    volumes, labels = crops(patients, seed=seed + 1)
    others, _ = crops(public, seed=seed + 2)
    scores = []
    for place in range(patients):
        true, label = volumes[place : place + 1], labels[place : place + 1]
        seen = _released(encoder, head, true, label, epsilon, seed=seed * 1000 + place)
        if centers > 1:
            seen = _opened(encoder, head, seen, centers - 1, seed=seed * 1000 + place)
        found = _searched(encoder, head, seen, label, steps=steps, seed=seed * 1000 + place)
        nearest = others[((others - true) ** 2).flatten(1).sum(dim=1).argmin()][None]
        scores.append([psnr(found, true), ssim(found, true), psnr(nearest, true), ssim(nearest, true)])
    psnr_, ssim_, nearest_psnr, nearest_ssim = torch.tensor(scores).mean(dim=0).tolist()
    return Inverted(epsilon, psnr_, ssim_, nearest_psnr, nearest_ssim, is_sum=centers > 1)


def _head(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    head = nn.Linear(WIDTH, 1)
    nn.init.zeros_(head.bias)
    return head


def _gradient(encoder: Encoder, head: nn.Linear, volume: Tensor, label: Tensor, *, keep: bool = False) -> list[Tensor]:
    loss = F.binary_cross_entropy_with_logits(head(encoder(volume)), label)
    return list(torch.autograd.grad(loss, list(head.parameters()), create_graph=keep))


def _released(
    encoder: Encoder, head: nn.Linear, volume: Tensor, label: Tensor, epsilon: float, *, seed: int
) -> list[Tensor]:
    """What leaves of a draw of this one patient: the product's clipping and noise, or the gradient itself."""
    if math.isinf(epsilon):
        return _gradient(encoder, head, volume, label)
    noise = noise_for(epsilon, DELTA, rate=RATE, draws=DRAWS, accountant="rdp")
    plan = Plan(cohort=10, batch=1, draws=DRAWS, clip=1.0, delta=DELTA, noise=noise)
    named = dict(head.named_parameters())

    def learn(job: Any, item: Any) -> None:
        for parameter, own in zip(named.values(), _gradient(encoder, head, volume, label), strict=True):
            parameter.grad = own

    model = SimpleNamespace(named_trainable_parameters=lambda: named, trained_parts={"head"})
    job: Any = SimpleNamespace(model=model, optimizer=torch.optim.SGD(head.parameters(), lr=1.0))
    DpSgd(plan, *known_streams(seed)).learn(job, Draw([[0]]), learn)  # type: ignore[list-item, arg-type]
    found = [parameter.grad.clone() for parameter in named.values() if parameter.grad is not None]
    head.zero_grad(set_to_none=True)
    return found


def _opened(encoder: Encoder, head: nn.Linear, own: list[Tensor], others: int, *, seed: int) -> list[Tensor]:
    """The mean of a gradient and those of patients of other centers, as a secure sum opens it."""
    volumes, labels = crops(others, seed=9_000 + seed)
    beside = [_gradient(encoder, head, volumes[n : n + 1], labels[n : n + 1]) for n in range(others)]
    named = [dict(zip(("weight", "bias"), parts, strict=True)) for parts in [own, *beside]]
    return list(opened_state(named).values())


def _searched(encoder: Encoder, head: nn.Linear, seen: list[Tensor], label: Tensor, *, steps: int, seed: int) -> Tensor:
    """The crop whose gradient looks most like what was seen."""
    generator = torch.Generator().manual_seed(seed)
    guess = (0.1 * torch.randn(1, 1, SIDE, SIDE, SIDE, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        own = torch.cat([part.flatten() for part in _gradient(encoder, head, guess, label, keep=True)])
        wanted = torch.cat([part.flatten() for part in seen])
        away = 1 - F.cosine_similarity(own, wanted.to(own.dtype), dim=0)
        variation = sum(guess.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
        (away + TOTAL_VARIATION * variation).backward()
        optimizer.step()
    return guess.detach()


def psnr(found: Tensor, true: Tensor) -> float:
    """Peak signal to noise in decibel, the peak being the true crop's range."""
    error = float(((found - true) ** 2).mean())
    return 10 * math.log10(float(true.max() - true.min()) ** 2 / max(error, 1e-12))


def ssim(found: Tensor, true: Tensor) -> float:
    """Structural similarity over windows of 5 voxels (Wang et al. 2004)."""
    from monai.metrics import SSIMMetric

    metric = SSIMMetric(spatial_dims=3, data_range=float(true.max() - true.min()), win_size=5, kernel_type="uniform")
    return float(torch.as_tensor(metric(found, true)).mean())
