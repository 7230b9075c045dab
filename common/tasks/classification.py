"""Classification: findings that are each present or absent, one class of several, or an ordered stage.

By a trained head, or for findings by text prompts. Rarer classes may weigh more, by class counts summed over centers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.options import FORMS, IMBALANCES
from common.config.task import ClassificationTask
from common.data.batch import Batch
from common.errors import ConfigError, UnknownName
from common.metrics import (
    CALIBRATION_BINS,
    SCORE_BINS,
    TEMPERATURES,
    auprc_from_counts,
    auroc_from_counts,
    auroc_interval,
    balanced_accuracy,
    best_temperature,
    calibration_error,
    mean_defined,
    reliability_sums,
    score_bins,
)
from common.protocol.messages import Sums
from common.tasks.base import Observation, Shapes, column, to_numpy
from common.tasks.bounds import CASES, AtMost
from common.tasks.cells import Cells, Histogram, Table

LABELS = "labels"
BOUNDS = (
    AtMost(("positives", "negatives"), CASES, over=(1,)),
    AtMost(("reliability_observed",), "reliability_cases"),
    AtMost(("reliability_predicted",), "reliability_cases"),
)
CELLS = (
    Table(("class_counts",), axes=1, partly=True),
    Histogram(("reliability_cases",), ("reliability_predicted",), within=("reliability_observed",), of=""),
    Table(("labeled",), axes=0, alike=("calibrated_nll",)),
)


class Classification:
    """Outputs against ``labels``, in which -1 is unknown and teaches nothing.

    Binary and multi-label: logits (B, C) against (B, C) of 1 present, 0 absent. Multi-class: logits (B, C) against
    (B, 1) class numbers. Ordinal: C - 1 logits of "later than class k", from one score and rising thresholds
    (McCullagh 1980), against (B, 1). With ``zero_shot`` there is no head: the frozen model compares the image with
    prompts, and its logit is the difference between "is present" and "is not present".

    Args:
        known: what the federation has learned from sums so far: ``class_counts`` (C, 2) of no and yes, or (C,) of the
            classes, over all centers' training cases; ``temperature`` () by which outputs are divided before they are
            read as probabilities.
    """

    kind = "classification"

    def __init__(self, spec: ClassificationTask, known: Mapping[str, np.ndarray] | None = None):
        if spec.form not in FORMS:
            raise UnknownName("form of a classification", spec.form, FORMS, where="task.form")
        if spec.imbalance not in IMBALANCES:
            raise UnknownName("imbalance rule", spec.imbalance, IMBALANCES, where="task.imbalance")
        if spec.imbalance == "weights" and len(spec.weights) != len(spec.classes):
            raise ConfigError(
                f"task.weights has {len(spec.weights)} entries for {len(spec.classes)} classes; give one for each."
            )
        self.spec = spec
        self.known = dict(known or {})
        self.classes = list(spec.classes)
        self.ordinal, self.exclusive = spec.form == "ordinal", spec.form in ("ordinal", "multi_class")
        self.outputs = len(self.classes) - self.ordinal
        self.zero_shot = spec.zero_shot
        self.primary = "balanced_accuracy" if self.exclusive else "auroc"
        self.temperature = float(self.known.get("temperature", 1.0))

    @property
    def sum_shapes(self) -> Shapes:
        histogram = (len(self.classes), SCORE_BINS)
        shapes: Shapes = {"cases": (), "positives": histogram, "negatives": histogram}
        return shapes | {"confusion": self._confusion_shape, "temperature_nll": (len(TEMPERATURES),)}

    @property
    def bounds(self) -> tuple[AtMost, ...]:
        table = AtMost(("confusion",), CASES, over=(0, 1) if self.exclusive else (1, 2))
        return (*BOUNDS, table, AtMost(("class_counts",), CASES, over=(-1,)))

    @property
    def signed(self) -> frozenset[str]:
        return frozenset()

    @property
    def cells(self) -> tuple[Cells, ...]:
        scores = Histogram(("positives", "negatives"), whole=self.exclusive)
        return (scores, Table(("confusion",), axes=2, dealt=True), *CELLS)

    @property
    def by_time(self) -> frozenset[str]:
        return frozenset()

    @property
    def by_subgroup(self) -> dict[str, tuple[str, ...]]:
        return {self.primary: ("confusion",) if self.exclusive else ("negatives", "positives")}

    @property
    def curve_shapes(self) -> Shapes:
        names = ("reliability_cases", "reliability_observed", "reliability_predicted")
        return {"labeled": (), "calibrated_nll": ()} | dict.fromkeys(names, (CALIBRATION_BINS,))

    @property
    def label_shapes(self) -> Shapes:
        return {"class_counts": (len(self.classes),) if self.exclusive else (len(self.classes), 2)}

    def head(self, dim: int) -> nn.Module | None:
        if self.zero_shot:
            return None
        return Stages(dim, self.outputs) if self.ordinal else nn.Linear(dim, self.outputs)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean negative log-likelihood over the known labels, weighted by class where the task says so."""
        labels = batch.target[LABELS].to(output.device)
        known = labels >= 0
        each = -_log_probability(output, labels.clamp(min=0), self.spec.form) * self._weight_of(labels, output)
        return torch.where(known, each, torch.zeros_like(each)).sum() / known.sum().clamp(min=1)

    def likelihood_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss itself."""
        return self.loss(output, batch)

    def probabilities(self, output: Tensor) -> Tensor:
        """(B, C) in [0, 1] at the fitted temperature; a binary or multi-label entry is that of yes."""
        return _probabilities(output.double() / self.temperature, self.spec.form)

    def predicted(self, output: Tensor) -> Tensor:
        """Class numbers (B, 1), or yes and no (B, C). Stages are counted, so that the middle of a spread is chosen."""
        if self.ordinal:
            return (output > 0).sum(dim=1, keepdim=True)
        return output.argmax(dim=1, keepdim=True) if self.exclusive else (output > 0).long()

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """``score``, the raw outputs, and ``label`` per case."""
        scores, labels = to_numpy(output), to_numpy(batch.target[LABELS])
        return [{"score": score, "label": label} for score, label in zip(scores, labels, strict=True)]

    def read(self, observations: Sequence[Observation]) -> tuple[np.ndarray, np.ndarray]:
        """What the records say of every class, (n, C): log-odds against the rest; probability at the temperature."""
        scores, _ = self._columns(observations)
        return to_numpy(_log_odds(scores, self.spec.form)), to_numpy(self.probabilities(scores))

    def truth(self, observations: Sequence[Observation]) -> np.ndarray:
        """Whether each class is there, (n, C): 1, 0, and -1 where nobody knows."""
        truth, known = self._yes_or_no(self._columns(observations)[1])
        return np.where(known, truth, -1).astype(np.int64)

    # ------------------------------------------------------------------------------------------------------- sums

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Histograms (C, bins) of the scores of yes and of no, true against predicted, likelihood by temperature."""
        scores, labels = self._columns(observations)
        truth, known = self._yes_or_no(labels)
        bins = score_bins(to_numpy(_log_odds(scores, self.spec.form)))
        return {
            "cases": np.array(float(len(observations))),
            "positives": _histograms(bins, known & truth),
            "negatives": _histograms(bins, known & ~truth),
            "confusion": self._confusion(scores, labels),
            "temperature_nll": np.array([self._nll(scores / t, labels) for t in TEMPERATURES]),
        }

    def curve_sums(self, observations: Sequence[Observation], threshold: float) -> Sums:
        """Predicted and observed shares, and the likelihood, at the fitted temperature."""
        scores, labels = self._columns(observations)
        truth, known = self._yes_or_no(labels)
        found = reliability_sums(to_numpy(self.probabilities(scores))[known], truth[known].astype(np.float64))
        sums = {f"reliability_{name}": value for name, value in found._asdict().items()}
        labeled, nll = float((labels >= 0).sum()), self._nll(scores / self.temperature, labels)
        return sums | {"labeled": np.array(labeled), "calibrated_nll": np.array(nll)}

    def label_sums(self, target: Mapping[str, Tensor]) -> Sums:
        """How many training cases there are of each class."""
        labels = to_numpy(target[LABELS]).astype(np.int64)
        if self.exclusive:
            return {"class_counts": np.bincount(labels[labels >= 0], minlength=len(self.classes)).astype(np.float64)}
        return {"class_counts": np.stack([(labels == 0).sum(axis=0), (labels == 1).sum(axis=0)], axis=1).astype(float)}

    def together(
        self, observations: Sequence[Observation], *, threshold: float, minimum: int
    ) -> Sequence[Observation] | None:
        """The records themselves: no sum of theirs is by time."""
        return observations

    def together_labels(self, target: Mapping[str, Tensor], *, minimum: int) -> Mapping[str, Tensor] | None:
        """The targets themselves."""
        return target

    def calibrate(self, sums: Sums) -> Sums:
        """The ``temperature`` that makes the validation labels likeliest (Guo et al. 2017); ranks do not change."""
        if self.zero_shot or not sums or sums["cases"].sum() <= 0:
            return {}
        return {"temperature": np.array(best_temperature(sums["temperature_nll"]))}

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """``auroc`` and ``auprc``, of every class against the rest and their means over the classes that have both;
        ``balanced_accuracy``; with the sums for curves also ``ece`` and ``nll``, at the fitted temperature."""
        pairs = list(zip(sums["positives"], sums["negatives"], strict=True))
        roc, prc = ([score(p, n) for p, n in pairs] for score in (auroc_from_counts, auprc_from_counts))
        found = {"auroc": mean_defined(roc), "auprc": mean_defined(prc), "balanced_accuracy": self._accuracy(sums)}
        if len(self.classes) > 1:
            found |= {f"auroc_{c}": v for c, v in zip(self.classes, roc, strict=True)}
            found |= {f"auprc_{c}": v for c, v in zip(self.classes, prc, strict=True)}
        return found | (self._calibration(sums) if "labeled" in sums else {})

    def intervals(self, sums: Sums) -> dict[str, tuple[float, float] | None]:
        """95 % interval of a binary task's AUROC; a mean over classes shares its cases and has none."""
        if len(self.classes) > 1:
            return {}
        return {"auroc": auroc_interval(sums["positives"][0], sums["negatives"][0])}

    def _calibration(self, sums: Sums) -> dict[str, float | None]:
        labeled = float(sums["labeled"])
        parts = (sums[f"reliability_{name}"] for name in ("cases", "predicted", "observed"))
        return {"ece": calibration_error(*parts), "nll": float(sums["calibrated_nll"]) / labeled if labeled else None}

    def _accuracy(self, sums: Sums) -> float | None:
        tables = [sums["confusion"]] if self.exclusive else list(sums["confusion"])
        return mean_defined([balanced_accuracy(table) for table in tables])

    @property
    def _confusion_shape(self) -> tuple[int, ...]:
        count = len(self.classes)
        return (count, count) if self.exclusive else (count, 2, 2)

    def _confusion(self, scores: Tensor, labels: np.ndarray) -> np.ndarray:
        """True class (row) against predicted class (column), (C, C) or per class (C, 2, 2)."""
        table, guess = np.zeros(self._confusion_shape), to_numpy(self.predicted(scores)).astype(np.int64)
        for case, place in np.argwhere(labels >= 0):
            true, said = labels[case, place], guess[case, place]
            table[(true, said) if self.exclusive else (place, true, said)] += 1
        return table

    def _columns(self, observations: Sequence[Observation]) -> tuple[Tensor, np.ndarray]:
        width = 1 if self.exclusive else len(self.classes)
        scores = torch.tensor(column(observations, "score", width=self.outputs))
        return scores, column(observations, "label", width=width).astype(np.int64)

    def _yes_or_no(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """bool (n, C): what is true, and where that is known."""
        if not self.exclusive:
            return labels == 1, labels >= 0
        numbers = np.arange(len(self.classes))[None, :]
        return labels == numbers, np.broadcast_to(labels >= 0, (len(labels), len(self.classes)))

    def _nll(self, scores: Tensor, labels: np.ndarray) -> float:
        """Unweighted, summed over the known labels."""
        numbers = torch.tensor(labels)
        each = _log_probability(scores, numbers.clamp(min=0), self.spec.form)
        return float(-(each * (numbers >= 0)).sum())

    def _weight_of(self, labels: Tensor, output: Tensor) -> Tensor:
        """The weight of every label, shaped like the labels; all ones without a rule or without counts."""
        table = self._weights()
        if table is None:
            return torch.ones(labels.shape, dtype=output.dtype, device=output.device)
        known = torch.tensor(table, dtype=output.dtype, device=output.device)
        numbers = labels.long().clamp(min=0)
        return known[numbers] if self.exclusive else known[torch.arange(known.shape[0], device=output.device), numbers]

    def _weights(self) -> np.ndarray | None:
        """(C,), or (C, 2) of no and yes. By counts: n / (classes x cases of the class), so that they average to one."""
        if self.spec.imbalance == "weights":
            given = np.array(self.spec.weights, np.float64)
            return given if self.exclusive else np.stack([np.ones_like(given), given], axis=1)
        counts = self.known.get("class_counts")
        if self.spec.imbalance == "none" or counts is None:
            return None
        counts = np.asarray(counts, np.float64)
        occurring = np.maximum((counts > 0).sum(axis=-1, keepdims=True), 1)
        fair = counts.sum(axis=-1, keepdims=True) / occurring
        return np.divide(fair, counts, out=np.ones_like(counts), where=counts > 0)


class Stages(nn.Module):
    """(B, dim) -> (B, K) logits of "later than stage k", falling in k: one score against rising thresholds."""

    def __init__(self, dim: int, thresholds: int):
        super().__init__()
        self.score = nn.Linear(dim, 1)
        self.gaps = nn.Parameter(torch.zeros(thresholds - 1))

    def forward(self, x: Tensor) -> Tensor:
        rises = F.pad(F.softplus(self.gaps).cumsum(dim=0), (1, 0))
        return self.score(x) - rises


def _probabilities(output: Tensor, form: str) -> Tensor:
    if form == "multi_class":
        return output.softmax(dim=1)
    if form == "ordinal":
        later = F.pad(output.sigmoid(), (1, 1))
        later[:, 0] = 1.0
        return (later[:, :-1] - later[:, 1:]).clamp(min=1e-12)
    return output.sigmoid()


def _log_odds(output: Tensor, form: str) -> Tensor:
    """(B, C): every class against the rest."""
    if form in ("binary", "multi_label"):
        return output
    shares = _probabilities(output, form).clamp(1e-12, 1 - 1e-12)
    return shares.log() - (-shares).log1p()


def _log_probability(output: Tensor, labels: Tensor, form: str) -> Tensor:
    """Of each label, shaped like the labels."""
    if form in ("binary", "multi_label"):
        return -F.binary_cross_entropy_with_logits(output, labels.to(output.dtype), reduction="none")
    if form == "multi_class":
        return output.log_softmax(dim=1).gather(1, labels.long())
    return _probabilities(output, form).log().gather(1, labels.long())


def _histograms(bins: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Counts (C, bins) of the chosen cells of (n, C) bin numbers."""
    columns = range(bins.shape[1])
    return np.array([np.bincount(bins[chosen[:, c], c], minlength=SCORE_BINS) for c in columns], np.float64)
