"""Prognosis: time to relapse on a fixed grid, with DeepHit, MTLR or discrete-time hazard losses.

Formulae follow pycox (and are tested against its numbers): Lee et al. 2018 (DeepHit), Fotso 2018 (N-MTLR), Gensheimer
and Narasimhan 2019 (discrete-time logistic hazard). The grid comes from the run's config, never from patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import Batch
from common.config.schema import PrognosisTask
from common.errors import UnknownName
from common.metrics import concordance_index, harrell_counts
from common.orders import Sums
from common.tasks.base import Observation, Shapes, column, to_numpy

DAYS, EVENT = "days", "event"
GROUPS = 2  # low and high predicted risk


class Prognosis:
    """Logits (B, K), one per grid time, against ``days`` (B,) and ``event`` (B,), 1 relapse or 0 censored."""

    kind = "prognosis"
    primary = "c_index"
    zero_shot = False

    def __init__(self, spec: PrognosisTask):
        if spec.loss not in LOSSES:
            raise UnknownName("prognosis loss", spec.loss, LOSSES)
        self.spec = spec
        self.outputs = spec.bins
        self.cuts = torch.linspace(0, spec.horizon_days, spec.bins, dtype=torch.float64)

    @property
    def sum_shapes(self) -> Shapes:
        return dict.fromkeys(("cases", "comparable", "concordant", "events", "risk_sum", "tied"), ())

    @property
    def curve_shapes(self) -> Shapes:
        return dict.fromkeys(("km_at_risk", "km_events"), (GROUPS, self.outputs))

    def head(self, dim: int) -> nn.Module | None:
        return nn.Linear(dim, self.outputs)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        index, event = discretise(batch.target[DAYS], batch.target[EVENT], self.cuts)
        return LOSSES[self.spec.loss](output.float(), index.to(output.device), event.to(output.device), self.spec)

    def survival_curve(self, output: Tensor) -> Tensor:
        """Probability (B, K) of being free of relapse after each grid time."""
        output = output.double()
        if self.spec.loss == "hazard":
            return (1 - output.sigmoid()).cumprod(dim=1)
        return 1 - _scores(output, self.spec.loss).softmax(dim=1).cumsum(dim=1)[:, :-1]

    def risk(self, output: Tensor) -> Tensor:
        """Expected share of the horizon lost to relapse, (B,) in [0, 1]: the mean over the grid of the cumulative
        incidence 1 - S. Higher is worse; its order is that of the restricted mean survival time, reversed."""
        return 1 - self.survival_curve(output).mean(dim=1)

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """``time`` in days (not cut at the horizon), ``event`` and ``risk`` per case, each a scalar."""
        columns = {"time": batch.target[DAYS], EVENT: batch.target[EVENT], "risk": self.risk(output)}
        arrays = {name: to_numpy(values) for name, values in columns.items()}
        return [{name: values[i] for name, values in arrays.items()} for i in range(len(output))]

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Harrell's pairs under HECKTOR's rules, formed within these cases only, and counts."""
        time, event, risk = (column(observations, name) for name in ("time", EVENT, "risk"))
        counts = harrell_counts(time, event, risk)
        totals = {"cases": len(time), "events": event.sum(), "risk_sum": np.nansum(risk)}
        return {name: np.array(float(value)) for name, value in (counts._asdict() | totals).items()}

    def curve_sums(self, observations: Sequence[Observation], threshold: float) -> Sums:
        """At-risk and event counts (2, K) on the grid for Kaplan-Meier curves; row 1 has a risk above the threshold.

        Cases sit on the grid as in training: an event at the next grid time, a censoring at the previous one.
        """
        time, event, risk = (column(observations, name) for name in ("time", EVENT, "risk"))
        index, happened = (x.numpy() for x in discretise(torch.tensor(time), torch.tensor(event), self.cuts))
        sums = {name: np.zeros(shape) for name, shape in self.curve_shapes.items()}
        for group, chosen in enumerate((~(risk > threshold), risk > threshold)):
            left = np.bincount(index[chosen], minlength=self.outputs)
            sums["km_at_risk"][group] = left[::-1].cumsum()[::-1]
            sums["km_events"][group] = np.bincount(index[chosen & (happened > 0)], minlength=self.outputs)
        return sums

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """``c_index``: concordance over the pairs within centers."""
        counts = (float(sums[name]) for name in ("concordant", "tied", "comparable"))
        return {"c_index": concordance_index(*counts)}


def discretise(time: Tensor, event: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor]:
    """Grid indices int64 (n,) and events (n,): events go up to the next cut, censorings down to the previous one.

    An event beyond the last cut is censored there.

    Args:
        cuts: (K,) ascending, starting at 0.
    """
    time, cuts = time.to(torch.float64), cuts.to(time.device)
    beyond = time > cuts[-1]
    time, event = time.clamp(0, float(cuts[-1])), torch.where(beyond, torch.zeros_like(event), event).float()
    up = torch.searchsorted(cuts, time)
    down = torch.searchsorted(cuts, time, right=True) - 1
    return torch.where(event > 0, up, down), event


def log_mass(scores: Tensor, mask: Tensor) -> Tensor:
    """log of the softmax probability (n,) that falls on the masked bins; at least one bin per row."""
    return scores.masked_fill(~mask, -torch.inf).logsumexp(dim=1) - scores.logsumexp(dim=1)


def nll_each(scores: Tensor, index: Tensor, event: Tensor) -> Tensor:
    """Negative log-likelihood (n,) of scores (n, K + 1) with the tail column last: an event's own bin, or for a
    censored case everything after its bin."""
    bins = torch.arange(scores.shape[1], device=scores.device)
    observed = torch.where(event.bool()[:, None], bins == index[:, None], bins > index[:, None])
    return -log_mass(scores, observed)


def rank_matrix(index: Tensor, event: Tensor) -> Tensor:
    """R (n, n): 1 where i has the event before j's bin, or in j's bin while j is censored."""
    before = index[:, None] < index[None, :]
    same = (index[:, None] == index[None, :]) & (event[None, :] == 0)
    return ((before | same) & (event[:, None] > 0)).float()


def rank_loss(logits: Tensor, index: Tensor, event: Tensor, *, sigma: float) -> Tensor:
    """DeepHit's ranking loss: mean over all n * n pairs (as pycox), so its size depends on the batch's.

    Without a comparable pair it is zero, with a gradient of zero.
    """
    incidence = deephit_scores(logits).softmax(dim=1).cumsum(dim=1)  # F (n, K + 1)
    at_own = incidence.gather(1, index[:, None])  # F_i(k_i), (n, 1)
    at_others = incidence[:, index].T  # F_j(k_i), (i, j)
    return (rank_matrix(index, event) * torch.exp(-(at_own - at_others) / sigma)).mean()


def deephit_scores(logits: Tensor) -> Tensor:
    """(n, K) -> (n, K + 1): a zero tail, the mass beyond the horizon."""
    return F.pad(logits, (0, 1))


def mtlr_scores(logits: Tensor) -> Tensor:
    """(n, K) -> (n, K + 1): reverse cumulative sums and a zero tail."""
    return F.pad(logits.flip(1).cumsum(dim=1).flip(1), (0, 1))


def _scores(logits: Tensor, loss: str) -> Tensor:
    return mtlr_scores(logits) if loss == "mtlr" else deephit_scores(logits)


def _deephit(logits: Tensor, index: Tensor, event: Tensor, spec: PrognosisTask) -> Tensor:
    likelihood = nll_each(deephit_scores(logits), index, event).mean()
    return spec.alpha * likelihood + (1 - spec.alpha) * rank_loss(logits, index, event, sigma=spec.sigma)


def _hazard(logits: Tensor, index: Tensor, event: Tensor, spec: PrognosisTask) -> Tensor:
    happened = F.one_hot(index, logits.shape[1]) * event[:, None]
    each = F.binary_cross_entropy_with_logits(logits, happened, reduction="none")
    until = torch.arange(logits.shape[1], device=logits.device) <= index[:, None]
    return (each * until).sum(dim=1).mean()


def _mtlr(logits: Tensor, index: Tensor, event: Tensor, spec: PrognosisTask) -> Tensor:
    return nll_each(mtlr_scores(logits), index, event).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, PrognosisTask], Tensor]] = {
    "deephit": _deephit,
    "hazard": _hazard,
    "mtlr": _mtlr,
}
