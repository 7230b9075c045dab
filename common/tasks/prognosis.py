"""Prognosis: time to relapse on fixed cuts, with DeepHit, MTLR, discrete-time hazard or Cox losses.

Formulae follow pycox (and are tested against its numbers): Lee et al. 2018 (DeepHit), Fotso 2018 (N-MTLR), Gensheimer
and Narasimhan 2019 (discrete-time logistic hazard); Cox is in `common.tasks.cox`. The cuts come from the run's config,
never from patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.task import PrognosisTask
from common.data.batch import Batch
from common.errors import UnknownName
from common.metrics import (
    CALIBRATION_BINS,
    antolini_counts,
    breslow,
    breslow_counts,
    brier_sums,
    calibration_error,
    censoring_counts,
    censoring_survival,
    concordance_index,
    concordance_interval,
    d_calibration,
    d_calibration_counts,
    dynamic_auc_sums,
    harrell_counts,
    integrated,
    mean_defined,
    pair_spread,
    reliability_sums,
    uno_sums,
)
from common.metrics.survival import cut_index, survival_at, weights_at
from common.protocol.messages import Sums
from common.tasks.base import Observation, Shapes, column, to_numpy
from common.tasks.bounds import CASES, AtMost
from common.tasks.cells import Cells, Histogram, RiskSets, Table
from common.tasks.cox import cox_nll
from common.tasks.dealing import dealt_places, dealt_times

DAYS, EVENT, STRATUM = "days", "event", "stratum"
GROUPS = 2  # low and high predicted risk
COX = "cox"
TOLD_RISK, TOLD_SURVIVAL = "told_risk", "told_survival"  # of a dealt record: its cell's
BASE_SUMS = (
    "antolini_concordant", "antolini_tied", "cases", "comparable", "concordant", "events", "risk_sum", "spread_cc",
    "spread_cn", "spread_nn", "tied",
)  # fmt: skip
CURVE_SCALARS = ("uno_comparable", "uno_concordant", "uno_tied")
BOUNDS = (
    AtMost(("concordant", "tied"), "comparable"),
    AtMost(("antolini_concordant", "antolini_tied"), "comparable"),
    AtMost(("comparable",), CASES, factor=2.0, power=2),
    AtMost(("spread_cc",), "spread_cn"),
    AtMost(("spread_cn",), "spread_nn"),
    AtMost(("events",), CASES),
    AtMost(("uno_concordant", "uno_tied"), "uno_comparable"),
    AtMost(("auc_wins",), "auc_pairs"),
    AtMost(("km_events",), "km_at_risk"),
    AtMost(("km_at_risk",), CASES, over=(0,)),
    AtMost(("reliability_predicted",), "reliability_cases"),
    AtMost(("reliability_cases",), CASES, over=(0,)),
    AtMost(("d_calibration",), CASES, over=(0,)),
    AtMost(("breslow_events",), "events", over=(0,)),
    AtMost(("censoring_censored",), "censoring_at_risk"),
    AtMost(("censoring_at_risk",), CASES),
)
CELLS = (
    RiskSets("censoring_at_risk", "censoring_censored"),
    RiskSets("km_at_risk", "km_events"),
    Histogram(("reliability_cases",), ("reliability_predicted",), within=("reliability_observed",)),
    Table(("d_calibration",), axes=1),
)
COX_SUMS = ("breslow_events", "breslow_risk", "partial_nll")


class Prognosis:
    """Logits (B, K), one per cut, or (B, 1) log hazards (Cox), against ``days`` (B,) and ``event`` (B,).

    Args:
        known: what the federation has learned from sums so far. ``censoring_at_risk`` and ``censoring_censored`` (K,)
            give the censoring distribution of the training cases; without them nobody is thought to be censored.
            ``baseline`` (K,) is Cox's cumulative hazard at a log risk of 0; without it a constant rate of one relapse
            per horizon stands in, and Cox's curves are right in order only. ``threshold`` () splits low from high risk.
    """

    kind = "prognosis"
    primary = "c_index"
    zero_shot = False

    def __init__(self, spec: PrognosisTask, known: Mapping[str, np.ndarray] | None = None):
        if spec.loss not in {*LOSSES, COX}:
            raise UnknownName("prognosis loss", spec.loss, {*LOSSES, COX})
        self.spec = spec
        self.known = dict(known or {})
        self.bins = spec.bins
        self.outputs = 1 if spec.loss == COX else spec.bins
        equal = torch.linspace(0, spec.horizon_days, spec.bins, dtype=torch.float64)
        self.cuts = torch.tensor(spec.cuts_days, dtype=torch.float64) if spec.cuts_days else equal

    @property
    def sum_shapes(self) -> Shapes:
        cox = {"breslow_events": (self.bins,), "breslow_risk": (self.bins,), "partial_nll": ()}
        return dict.fromkeys(BASE_SUMS, ()) | (cox if self.spec.loss == COX else {})

    @property
    def bounds(self) -> tuple[AtMost, ...]:
        return BOUNDS if self.spec.loss == COX else (*BOUNDS, AtMost(("risk_sum",), CASES))

    @property
    def signed(self) -> frozenset[str]:
        return frozenset({"risk_sum"}) if self.spec.loss == COX else frozenset()

    @property
    def cells(self) -> tuple[Cells, ...]:
        cox = self.spec.loss == COX
        events = Table(("events",), axes=0, alike=COX_SUMS if cox else ())
        return (events, *CELLS, Table(("breslow_events",), axes=1, alike=("breslow_risk",), of="events"))

    @property
    def by_time(self) -> frozenset[str]:
        return frozenset({"breslow_events", "breslow_risk"}) if self.spec.loss == COX else frozenset()

    @property
    def by_subgroup(self) -> dict[str, tuple[str, ...]]:
        return {"c_index": ("comparable", "concordant", "events", "spread_cc", "spread_cn", "spread_nn", "tied")}

    @property
    def curve_shapes(self) -> Shapes:
        kaplan_meier = dict.fromkeys(("km_at_risk", "km_events"), (GROUPS, self.bins))
        on_grid = dict.fromkeys(("auc_pairs", "auc_wins", "brier"), (self.bins,))
        names = ("d_calibration", "reliability_cases", "reliability_observed", "reliability_predicted")
        return kaplan_meier | on_grid | dict.fromkeys(names, (CALIBRATION_BINS,)) | dict.fromkeys(CURVE_SCALARS, ())

    @property
    def label_shapes(self) -> Shapes:
        return dict.fromkeys(("censoring_at_risk", "censoring_censored"), (self.bins,))

    def head(self, dim: int) -> nn.Module | None:
        return nn.Linear(dim, self.outputs)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        if self.spec.loss == COX:
            time, event = (batch.target[name].to(output.device) for name in (DAYS, EVENT))
            stratum = batch.target.get(STRATUM)
            total = cox_nll(output.float()[:, 0], time, event, None if stratum is None else stratum.to(output.device))
            return total / event.sum().clamp(min=1)
        index, event = discretise(batch.target[DAYS], batch.target[EVENT], self.cuts)
        return LOSSES[self.spec.loss](output.float(), index.to(output.device), event.to(output.device), self.spec)

    def likelihood_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss without DeepHit's ranking term, which compares cases."""
        if self.spec.loss != "deephit":
            return self.loss(output, batch)
        index, event = discretise(batch.target[DAYS], batch.target[EVENT], self.cuts)
        scores = deephit_scores(output.float())
        return nll_each(scores, index.to(output.device), event.to(output.device)).mean()

    def survival_curve(self, output: Tensor) -> Tensor:
        """Probability (B, K) of being free of relapse after each cut."""
        output = output.double()
        if self.spec.loss == COX:
            return torch.exp(-self._baseline().to(output.device) * output.clamp(-30, 30).exp())
        if self.spec.loss == "hazard":
            return (1 - output.sigmoid()).cumprod(dim=1)
        return 1 - _scores(output, self.spec.loss).softmax(dim=1).cumsum(dim=1)[:, :-1]

    def risk(self, output: Tensor) -> Tensor:
        """One number per case (B,), higher is worse. Cox: the log hazard. Else the expected share of the horizon lost
        to relapse in [0, 1], the mean over the cuts of 1 - S: the restricted mean survival time, reversed."""
        return output.double()[:, 0] if self.spec.loss == COX else 1 - self.survival_curve(output).mean(dim=1)

    def median_time(self, output: Tensor) -> Tensor:
        """Days (B,) at which the curve, linear between cuts, falls to one half; inf where it stays above."""
        survival, cuts = self.survival_curve(output), self.cuts.to(output.device)
        below = survival <= 0.5
        k = below.int().argmax(dim=1)
        previous = torch.where(k > 0, survival.gather(1, (k - 1).clamp(min=0)[:, None])[:, 0], torch.ones_like(cuts[k]))
        here = survival.gather(1, k[:, None])[:, 0]
        start = torch.where(k > 0, cuts[(k - 1).clamp(min=0)], torch.zeros_like(cuts[k]))
        share = (previous - 0.5) / (previous - here).clamp(min=1e-12)
        return torch.where(below.any(dim=1), start + share.clamp(0, 1) * (cuts[k] - start), torch.inf)

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """``time`` in days (not cut at the horizon), ``event`` and ``risk``, each a scalar, and ``survival`` (K,)."""
        columns = {
            "time": batch.target[DAYS], EVENT: batch.target[EVENT], "risk": self.risk(output),
            "survival": self.survival_curve(output),
        }  # fmt: skip
        arrays = {name: to_numpy(values) for name, values in columns.items()}
        return [{name: values[i] for name, values in arrays.items()} for i in range(len(output))]

    # ------------------------------------------------------------------------------------------------------- sums

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Harrell's pairs under HECKTOR's rules and Antolini's, formed within these cases only, and counts."""
        time, event, risk = self._columns(observations)
        survival = column(observations, "survival", width=self.bins)
        harrell, spread = harrell_counts(time, event, risk), pair_spread(time, event, risk)
        antolini = antolini_counts(time, event, survival_at(survival, time, self.cuts.numpy()))
        totals = harrell._asdict() | {f"spread_{name}": value for name, value in spread._asdict().items()}
        totals |= {"antolini_concordant": antolini.concordant, "antolini_tied": antolini.tied}
        totals |= {"cases": len(time), "events": event.sum(), "risk_sum": np.nansum(risk)}
        sums = {name: np.array(float(value)) for name, value in totals.items()}
        return sums | (self._cox_sums(time, event, risk) if self.spec.loss == COX else {})

    def curve_sums(self, observations: Sequence[Observation], threshold: float) -> Sums:
        """What curves and calibration need, (2, K) counts for Kaplan-Meier among them; row 1 is above the threshold.

        For Kaplan-Meier, cases sit on the cuts as in training: an event at the next cut, a censoring at the
        previous one. Calibration looks at the middle cut.
        """
        time, event, risk = self._columns(observations)
        survival, cuts = np.nan_to_num(column(observations, "survival", width=self.bins)), self.cuts.numpy()
        counted, told = _told_of(observations, risk, survival)
        censoring = self._censoring()
        where = {"cuts": cuts, "censoring": censoring}
        weight = weights_at(time, event, cuts, censoring)
        uno = uno_sums(time, event, risk, weight=weights_at(time, event, cuts, censoring, through=True) ** 2)
        wins, pairs = dynamic_auc_sums(time, event, risk, **where)
        middle = self.bins // 2
        early = weight * (cut_index(time, cuts) <= middle)
        reliability = reliability_sums(np.clip(1 - told[:, middle], 0, 1), early)
        own = np.diagonal(survival_at(told, np.minimum(time, cuts[-1]), cuts))
        sums: Sums = {"auc_wins": wins, "auc_pairs": pairs, "brier": brier_sums(time, event, survival, **where)}
        sums |= {f"uno_{name}": np.array(value) for name, value in uno._asdict().items()}
        sums |= {f"reliability_{name}": value for name, value in reliability._asdict().items()}
        sums["d_calibration"] = d_calibration_counts(own, event * (time <= cuts[-1]))
        return sums | self._kaplan_meier(time, event, counted > threshold)

    def label_sums(self, target: Mapping[str, Tensor]) -> Sums:
        """Counts of the training cases' censoring on the cuts, before any model is asked."""
        at_risk, censored = censoring_counts(to_numpy(target[DAYS]), to_numpy(target[EVENT]), self.cuts.numpy())
        return {"censoring_at_risk": at_risk, "censoring_censored": censored}

    def together(
        self, observations: Sequence[Observation], *, threshold: float, minimum: int
    ) -> Sequence[Observation] | None:
        """The records with risks, curves and times of cells of exactly the minimum, so that whatever is counted of them
        at any threshold, on any cuts and by any model differs by whole cells. None where an outcome is of a few.

        Relapsed and censored patients are dealt by their risk; a cell's ``told_risk`` is its middle patient's, its
        ``told_survival`` the median at every cut. Then each outcome's times are dealt within the groups that the
        threshold makes of the cells. Risk and curve themselves stay as they are.
        """
        if minimum <= 1 or not observations:
            return observations
        time, event, risk = self._columns(observations)
        survival = column(observations, "survival", width=self.bins)
        told_risk, told_survival = np.array(risk), np.array(survival)
        for own in (event > 0, event <= 0):
            found = dealt_places(risk[own], minimum)
            if found is None:
                return None
            cell, place = found
            told_risk[own] = risk[own][place][cell]
            medians = [np.median(survival[own][cell == number], axis=0) for number in range(len(place))]
            told_survival[own] = np.array(medians).reshape(-1, self.bins)[cell]
        times = dealt_times(time, 2 * (told_risk > threshold) + (event > 0), minimum=minimum)
        if times is None:
            return None
        told = zip(observations, times, told_risk, told_survival, strict=True)
        return [{**o, "time": np.array(t), TOLD_RISK: np.array(r), TOLD_SURVIVAL: s} for o, t, r, s in told]

    def together_labels(self, target: Mapping[str, Tensor], *, minimum: int) -> Mapping[str, Tensor] | None:
        """Targets with times of cells of exactly the minimum, whatever the cuts."""
        if minimum <= 1:
            return target
        times = dealt_times(to_numpy(target[DAYS]), to_numpy(target[EVENT]) > 0, minimum=minimum)
        return None if times is None else {**target, DAYS: torch.tensor(times)}

    def calibrate(self, sums: Sums) -> Sums:
        """From validation cases: the mean risk as the ``threshold``, and Cox's ``baseline`` (Breslow's, pooled)."""
        if not sums or sums["cases"].sum() <= 0:
            return {}
        found: Sums = {"threshold": sums["risk_sum"] / sums["cases"]}
        if self.spec.loss == COX:
            found["baseline"] = breslow(sums["breslow_events"], sums["breslow_risk"])
        return found

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """``c_index`` and ``antolini`` over pairs within centers; Cox: ``nll`` per relapse. With the sums for curves
        also ``uno``, ``ibs`` (integrated Brier score), ``td_auc`` (mean over the cuts), ``ece`` at the middle of the
        cuts and ``d_calibration_p``."""
        counts = [float(sums[name]) for name in ("concordant", "tied", "comparable")]
        antolini = float(sums["antolini_concordant"]), float(sums["antolini_tied"]), counts[2]
        found = {"c_index": concordance_index(*counts), "antolini": concordance_index(*antolini)}
        if self.spec.loss == COX:
            events = float(sums["events"])
            found["nll"] = float(sums["partial_nll"]) / events if events > 0 else None
        return found | (self._curve_metrics(sums) if "brier" in sums else {})

    def intervals(self, sums: Sums) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of metrics from the same sums."""
        counts = tuple(float(sums[name]) for name in ("concordant", "tied", "comparable"))
        spread = tuple(float(sums[f"spread_{name}"]) for name in ("cc", "cn", "nn"))
        return {"c_index": concordance_interval(counts, spread)}  # type: ignore[arg-type]

    def _curve_metrics(self, sums: Sums) -> dict[str, float | None]:
        # a center whose curves would tell of a few sends zeros: its cases do not count here
        cases, cuts = float(sums["reliability_cases"].sum()), self.cuts.numpy()
        some = sums["auc_pairs"] > 0
        d_test = d_calibration(sums["d_calibration"])
        uno = (float(sums[f"uno_{name}"]) for name in ("concordant", "tied", "comparable"))
        reliability = (sums[f"reliability_{name}"] for name in ("cases", "predicted", "observed"))
        return {
            "uno": concordance_index(*uno),
            "ibs": integrated(sums["brier"] / cases, cuts) if cases > 0 else None,
            "td_auc": mean_defined((sums["auc_wins"][some] / sums["auc_pairs"][some]).tolist()),
            "ece": calibration_error(*reliability),
            "d_calibration_p": d_test[1] if d_test else None,
        }

    def _columns(self, observations: Sequence[Observation]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        time, event, risk = (column(observations, name) for name in ("time", EVENT, "risk"))
        return time, event, risk

    def _kaplan_meier(self, time: np.ndarray, event: np.ndarray, high: np.ndarray) -> Sums:
        at_risk, events = group_counts(time, event, high.astype(np.int64), self.cuts, groups=GROUPS)
        return {"km_at_risk": at_risk, "km_events": events}

    def _cox_sums(self, time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> Sums:
        risk = np.clip(np.nan_to_num(risk), -30, 30)
        index, happened = (x.numpy() for x in discretise(torch.tensor(time), torch.tensor(event), self.cuts))
        events, at_risk = breslow_counts(index, happened, risk, bins=self.bins)
        return {
            "breslow_events": events,
            "breslow_risk": at_risk,
            "partial_nll": to_numpy(cox_nll(torch.tensor(risk), torch.tensor(time), torch.tensor(event))),
        }

    def _censoring(self) -> np.ndarray:
        if "censoring_at_risk" not in self.known:
            return np.ones(self.bins)
        return censoring_survival(self.known["censoring_at_risk"], self.known["censoring_censored"])

    def _baseline(self) -> Tensor:
        if "baseline" in self.known:
            return torch.tensor(self.known["baseline"], dtype=torch.float64)
        return self.cuts / self.cuts[-1]


def _told_of(
    observations: Sequence[Observation], risk: np.ndarray, survival: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The risks and curves by which patients are counted: those of their cells where the records were dealt."""
    if not observations or TOLD_RISK not in observations[0]:
        return risk, survival
    return column(observations, TOLD_RISK), np.nan_to_num(column(observations, TOLD_SURVIVAL))


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


def group_counts(
    time: np.ndarray, event: np.ndarray, group: np.ndarray, cuts: Tensor, *, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """At-risk and event counts (groups, K) on the cuts, as `discretise` puts cases there, for Kaplan-Meier.

    Args:
        group: (n,) which group each case is in, from 0.
    """
    index, happened = (x.numpy() for x in discretise(torch.tensor(time), torch.tensor(event), cuts))
    at_risk, events = np.zeros((groups, len(cuts))), np.zeros((groups, len(cuts)))
    for number in range(groups):
        chosen = group == number
        left = np.bincount(index[chosen], minlength=len(cuts))
        at_risk[number] = left[::-1].cumsum()[::-1]
        events[number] = np.bincount(index[chosen & (happened > 0)], minlength=len(cuts))
    return at_risk, events


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
