"""Cox's partial likelihood with Efron's ties, stratified by center, and Breslow's baseline from summed counts."""

from __future__ import annotations

import torch
from torch import Tensor


def cox_nll(log_risk: Tensor, time: Tensor, event: Tensor, stratum: Tensor | None = None) -> Tensor:
    """Negative log partial likelihood, summed over strata (Efron 1977); zero with a gradient without any pair.

    Args:
        log_risk: (n,) linear predictors.
        time, event: (n,) any unit of time; 1 relapse, 0 censored.
        stratum: (n,) integers; risk sets hold cases of one stratum only. None: one stratum.
    """
    stratum = torch.zeros_like(time, dtype=torch.int64) if stratum is None else stratum
    parts = [
        _efron(log_risk[stratum == s], time[stratum == s], event[stratum == s]) for s in torch.unique(stratum).tolist()
    ]
    return torch.stack(parts).sum() if parts else log_risk.sum() * 0.0


def _efron(log_risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """One stratum. With d deaths at a time, the l-th of them leaves l / d of the tied risk out of its denominator."""
    happened = event > 0
    if not bool(happened.any()):
        return log_risk.sum() * 0.0
    peak = log_risk.detach().max()
    hazard = torch.exp(log_risk - peak)
    total = torch.zeros((), dtype=log_risk.dtype, device=log_risk.device)
    for moment in torch.unique(time[happened]):
        tied = happened & (time == moment)
        d = int(tied.sum())
        share = torch.arange(d, dtype=log_risk.dtype, device=log_risk.device) / d
        denominator = hazard[time >= moment].sum() - share * hazard[tied].sum()
        total = total + torch.log(denominator).sum() + d * peak - log_risk[tied].sum()
    return total
