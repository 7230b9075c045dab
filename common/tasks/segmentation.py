"""Segmentation of named structures: Dice with cross-entropy to train, HECKTOR's aggregated Dice to score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss
from torch import Tensor, nn

from common.config.task import SegmentationTask
from common.data.batch import Batch
from common.metrics import dsc_agg, mean_defined, mean_interval
from common.metrics.overlap import dice_scores
from common.protocol.messages import Sums
from common.tasks.base import Observation, Scored, Shapes, column, to_numpy
from common.tasks.bounds import CASES, AtMost
from common.tasks.cells import Mean
from common.tasks.distances import (
    DISTANCE_BOUNDS,
    DISTANCE_CELLS,
    LESIONS,
    SURFACE,
    distance_metrics,
    distance_shapes,
    distance_sums,
    measured,
)

BOUNDS = (
    AtMost(("intersection",), "volumes", factor=2.0),
    AtMost(("false_positive_mm3",), "volumes"),
    AtMost(("dice_sum",), "dice_cases"),
    AtMost(("dice_squares",), "dice_sum"),
    AtMost(("ceiling_intersection",), "ceiling_volumes", factor=2.0),
    AtMost(("ceiling_dice_sum",), "dice_cases"),
    AtMost(("dice_cases",), CASES),
    *DISTANCE_BOUNDS,
)
CEILING = ("ceiling_intersection", "ceiling_volumes", "ceiling_dice_sum")
PER_STRUCTURE = (
    "intersection", "volumes", "dice_sum", "dice_squares", "dice_cases", "false_positive_mm3", *CEILING,
)  # fmt: skip
CELLS = (
    Mean(
        "dice_cases",
        ("dice_sum", "dice_squares", "ceiling_dice_sum", SURFACE),
        ("intersection", "volumes", "false_positive_mm3", "ceiling_intersection", "ceiling_volumes", *LESIONS),
    ),
    *DISTANCE_CELLS,
)
MASK, VOXEL_MM3, OUTSIDE_MM3 = "mask", "voxel_mm3", "outside_mm3"
IGNORED = 255  # of a mask: nobody drew anything there
KNOWN = "known"
NEVER = 1e4  # a logit so low that its class is nowhere
SURE = 30.0  # logits this far apart are a certainty


class DiceFocal(nn.Module):
    """Dice over the structures, and the focal loss (arXiv 1708.02002, gamma 2) of the softmax over all classes."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(to_onehot_y=True, softmax=True, include_background=False)
        self.focal = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)

    def forward(self, output: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, C, D, H, W) against labels (B, 1, D, H, W)."""
        return self.dice(output, labels) + self.focal(output, labels)


LOSSES: Mapping[str, Callable[[], Callable[[Tensor, Tensor], Tensor]]] = {  # task.loss
    "dice_ce": partial(DiceCELoss, to_onehot_y=True, softmax=True, include_background=False),
    "dice_focal": DiceFocal,
    # arXiv 1706.05721: a missed voxel weighs 0.7, a false one 0.3
    "tversky": partial(TverskyLoss, to_onehot_y=True, softmax=True, include_background=False, alpha=0.3, beta=0.7),
}


class Segmentation(Scored):
    """Logits (B, 1 + S, D, H, W), background first, against a label map.

    Targets: ``mask`` int (B, 1, D, H, W) or (B, D, H, W), 0 background, i for structure i (of those within each other
    the innermost), 255 where nobody drew anything: neither trained nor scored; ``voxel_mm3`` (B,) volume of
    a voxel, 1 where absent; ``outside_mm3`` (B, S or another width) true volume per structure that the crop cut off, 0
    where absent: it counts as missed; ``known`` (B, S) 0 of a structure that the center does not outline, which may lie
    wherever nothing is drawn: it is neither learned as background nor scored there; where absent all are outlined.
    """

    kind = "segmentation"
    primary = "dsc_agg"
    bounds = BOUNDS
    signed = frozenset()
    cells = CELLS
    by_subgroup: Mapping[str, tuple[str, ...]] = {
        "dsc_agg": ("dice_cases", "intersection", "volumes"),
        "dice": ("dice_cases", "dice_squares", "dice_sum"),
    }

    def __init__(self, spec: SegmentationTask):
        self.structures = list(spec.structures)
        self.outputs = 1 + len(self.structures)
        self.tolerance_mm = spec.tolerance_mm
        self.members = [_members(name, spec) for name in self.structures]  # places in the map, from 1
        self._loss = LOSSES[spec.loss]()

    @property
    def sum_shapes(self) -> Shapes:
        shapes: Shapes = dict.fromkeys(PER_STRUCTURE, (len(self.structures),))
        return shapes | distance_shapes(len(self.structures)) | {"cases": ()}

    def head(self, dim: int) -> nn.Module | None:
        return None  # the decoder part ends in logits

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        if KNOWN in batch.target:
            return self._partly(output.float(), batch)
        labels = label_map(batch).unsqueeze(1)
        ignored = labels == IGNORED
        if not bool(ignored.any()):
            return self._loss(output.float(), labels)
        sure = torch.full_like(output[:1, :, :1, :1, :1], -SURE).float()
        sure[:, 0] = SURE  # certain and right: no gradient, and nothing that counts in an overlap
        return self._loss(torch.where(ignored, sure, output.float()), labels.masked_fill(ignored, 0))

    def _partly(self, output: Tensor, batch: Batch) -> Tensor:
        """The same of logits in which what a case's center does not outline is part of the background: the marginal
        likelihood (MiB, Cermelli et al., CVPR 2020); a case at a time, since each may know others."""
        each = []
        for row in range(len(output)):
            target = {name: tensor[row : row + 1] for name, tensor in batch.target.items() if name != KNOWN}
            known = batch.target[KNOWN][row].bool()
            if bool(known.any()):
                logits, mask = seen_as_background(output[row : row + 1], target[MASK], known)
                each.append(self.loss(logits, Batch({}, {}, {**target, MASK: mask})))
        return torch.stack(each).mean() if each else output.sum() * 0.0

    def likelihood_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The cross-entropy, a mean over the annotated voxels; Dice is no likelihood."""
        labels = label_map(batch).long()
        if KNOWN in batch.target:
            known = batch.target[KNOWN].bool()
            output = torch.cat([merged_logits(output[row : row + 1].float(), known[row]) for row in range(len(output))])
            labels = torch.stack([without(labels[row], known[row]) for row in range(len(labels))])
        total = F.cross_entropy(output.float(), labels, ignore_index=IGNORED, reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """Volumes in mm3 per case: ``intersection``, ``predicted`` and ``truth``, each (S,)."""
        labels, predicted = label_map(batch), output.argmax(dim=1)
        predicted = predicted.masked_fill(labels == IGNORED, 0)
        voxel = batch.target.get(VOXEL_MM3, torch.ones(len(labels)))
        is_true, is_predicted = (
            torch.stack([is_one_of(x, members) for members in self.members], dim=1).flatten(2)
            for x in (labels, predicted)
        )  # (B, S, N)
        counts = {"intersection": is_true & is_predicted, "predicted": is_predicted, "truth": is_true}
        volumes = {name: to_numpy(hit.sum(dim=2)) * to_numpy(voxel)[:, None] for name, hit in counts.items()}
        if OUTSIDE_MM3 in batch.target:
            outside = to_numpy(batch.target[OUTSIDE_MM3])[:, : len(self.structures)]
            volumes["truth"][:, : outside.shape[1]] += outside
        if KNOWN in batch.target:
            volumes = of_known(volumes, to_numpy(batch.target[KNOWN]))
        return [{name: volume[i] for name, volume in volumes.items()} for i in range(len(labels))]

    def compared(
        self, predicted: np.ndarray, truth: np.ndarray, *, voxel_mm3: float, spacing_mm: np.ndarray, farthest_mm: float
    ) -> Observation:
        """The record of two label maps (x, y, z) on the grid where the truth was drawn, 255 where nobody drew anything.

        Beside `observe`'s volumes it has what `common.tasks.distances.measured` says.
        """
        masks = self._masks(predicted, truth)
        distances = measured(*masks, spacing_mm=spacing_mm, tolerance_mm=self.tolerance_mm, farthest_mm=farthest_mm)
        return _volumes(*masks, voxel_mm3) | distances

    def _masks(self, predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, x, y, z) of each: where a structure and those within it are."""
        predicted = np.where(truth == IGNORED, 0, predicted)
        found, drawn = (np.stack([*self.inside(x).values()]) for x in (predicted, truth))
        return found, drawn

    def ceiling(self, perfect: np.ndarray, truth: np.ndarray, *, voxel_mm3: float) -> Observation:
        """What a record gets beside its volumes where the truth is finer than the grid of the answer.

        Args:
            perfect: the answer that is perfect on the answer's own grid, brought to the truth's.
        """
        found = _volumes(*self._masks(perfect, truth), voxel_mm3)
        return {"ceiling_intersection": found["intersection"], "ceiling_predicted": found["predicted"]}

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Sums over cases. A structure absent from truth and prediction alike has no Dice and is skipped there; in the
        ceiling's sums it counts 1 where only the prediction has it, which a perfect answer would not."""
        width = len(self.structures)
        nothing = np.zeros(width)
        both, predicted, truth = (
            column(observations, name, width=width) for name in ("intersection", "predicted", "truth")
        )
        with_ceiling = [o for o in observations if "ceiling_predicted" in o]
        volumes = predicted + truth
        scored = volumes > 0
        dice = dice_scores(both, volumes)
        return {
            "cases": np.array(float(len(observations))),
            "intersection": both.sum(axis=0),
            "volumes": volumes.sum(axis=0),
            "dice_sum": dice.sum(axis=0),
            "dice_squares": (dice**2).sum(axis=0),
            "dice_cases": scored.sum(axis=0).astype(np.float64),
            "false_positive_mm3": np.where(truth == 0, predicted, 0.0).sum(axis=0),
            **(self._ceiling_sums(with_ceiling) if with_ceiling else dict.fromkeys(CEILING, nothing)),
            **distance_sums([o for o in observations if "hd95" in o], width=width),
        }

    def _ceiling_sums(self, observations: Sequence[Observation]) -> Sums:
        width = len(self.structures)
        both, perfect, predicted, truth = (
            column(observations, name, width=width)
            for name in ("ceiling_intersection", "ceiling_predicted", "predicted", "truth")
        )
        volumes = perfect + truth
        dice = np.where((volumes == 0) & (predicted > 0), 1.0, dice_scores(both, volumes))
        return dict(zip(CEILING, (both.sum(axis=0), volumes.sum(axis=0), dice.sum(axis=0)), strict=True))

    def inside(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Structure -> bool: where a label map holds it, or what lies within it."""
        return {name: np.isin(labels, places) for name, places in zip(self.structures, self.members, strict=True)}

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """``dsc_agg`` and ``dice`` (mean over cases), each also per structure and averaged over structures; and the
        ceiling of each, where cases were scored on a finer grid than the model's: what a mask that is perfect on the
        model's grid reaches."""
        found = self._pair("", sums["intersection"], sums["volumes"], sums["dice_sum"], sums["dice_cases"])
        if (sums["ceiling_volumes"] > 0).any():
            both, volumes, dice = (sums[name] for name in CEILING)
            found |= self._pair("_ceiling", both, volumes, dice, sums["dice_cases"])
        return found | distance_metrics(sums, self.structures)

    def _pair(
        self, suffix: str, both: np.ndarray, volumes: np.ndarray, dice: np.ndarray, cases: np.ndarray
    ) -> dict[str, float | None]:
        aggregated, mean = dsc_agg(both, volumes), dsc_agg(dice / 2, cases)  # a mean over cases is the same ratio
        named = {f"dsc_agg{suffix}_{s}": value for s, value in zip(self.structures, aggregated, strict=True)}
        named |= {f"dice{suffix}_{s}": value for s, value in zip(self.structures, mean, strict=True)}
        return {f"dsc_agg{suffix}": mean_defined(aggregated), f"dice{suffix}": mean_defined(mean), **named}

    def intervals(self, sums: Sums) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of the mean Dice over patients, from its sum, its squares and n (Student's t).

        That of the average over structures takes them as fully dependent, so it is rather too wide.
        """
        each = {
            f"dice_{name}": mean_interval(
                *(float(sums[part][i]) for part in ("dice_sum", "dice_squares", "dice_cases"))
            )
            for i, name in enumerate(self.structures)
        }
        has_value = sums["dice_cases"] > 0
        known = [ends for ends, counts in zip(each.values(), has_value, strict=True) if counts]
        ends = [pair for pair in known if pair is not None]
        whole = ends and len(ends) == len(known)
        averaged = (
            (sum(low for low, _ in ends) / len(ends), sum(high for _, high in ends) / len(ends)) if whole else None
        )
        return {"dice": averaged, **each}


def _volumes(is_predicted: np.ndarray, is_true: np.ndarray, voxel_mm3: float) -> Observation:
    hits = {"intersection": is_true & is_predicted, "predicted": is_predicted, "truth": is_true}
    return {name: hit.reshape(len(hit), -1).sum(axis=1) * voxel_mm3 for name, hit in hits.items()}


def _members(structure: str, spec: SegmentationTask) -> list[int]:
    """Places, from 1, of a structure and of those within it."""
    names = list(spec.structures)
    return [names.index(name) + 1 for name in [structure, *spec.within.get(structure, [])]]


def of_known(record: Observation, known: np.ndarray) -> Observation:
    """A record, or several, in which what the center does not outline is nowhere, so that nothing counts it."""
    return {name: values * known for name, values in record.items()}


def merged_logits(output: Tensor, known: Tensor) -> Tensor:
    """Logits (B, 1 + S, ...) with the background's that of background or of any structure that is not known; those
    structures' own are minus what never is. A constant shift of all changes nothing.

    Args:
        known: bool (S,).
    """
    other = torch.cat([known.new_ones(1), ~known]).to(output.device)
    background = output[:, other].logsumexp(dim=1, keepdim=True)
    left = torch.where((~other[1:]).view(1, -1, 1, 1, 1), output[:, 1:], torch.full_like(output[:, 1:], -NEVER))
    return torch.cat([background, left], dim=1)


def without(labels: Tensor, known: Tensor) -> Tensor:
    """A label map in which structures that are not known are background: nobody says that they were drawn whole."""
    unknown = [place + 1 for place in range(len(known)) if not known[place]]
    return labels.masked_fill(is_one_of(labels, unknown), 0) if unknown else labels


def seen_as_background(output: Tensor, mask: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of one case over background and the known structures alone, and the mask in their places."""
    merged = merged_logits(output, known)
    kept = [0, *(place + 1 for place in range(len(known)) if known[place])]
    new = mask.clone()
    for place in range(1, len(known) + 1):
        new[mask == place] = kept.index(place) if place in kept else 0
    return merged[:, kept], new


def is_one_of(labels: Tensor, places: Sequence[int]) -> Tensor:
    """bool, where a label map is at one of these places."""
    found = labels == places[0]
    for place in places[1:]:
        found = found | (labels == place)
    return found


def label_map(batch: Batch) -> Tensor:
    """(B, D, H, W) labels."""
    mask = batch.target[MASK]
    return (mask[:, 0] if mask.dim() == 5 else mask).long()
