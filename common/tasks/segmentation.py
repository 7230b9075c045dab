"""Segmentation of named structures: Dice with cross-entropy to train, HECKTOR's aggregated Dice to score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from common.config.task import SegmentationTask
from common.data.batch import Batch
from common.metrics import dsc_agg, mean_defined
from common.protocol.messages import Sums
from common.tasks.base import Observation, Scored, Shapes, column, to_numpy
from common.tasks.bounds import CASES, AtMost
from common.tasks.cells import Mean

BOUNDS = (
    AtMost(("intersection",), "volumes", factor=2.0),
    AtMost(("false_positive_mm3",), "volumes"),
    AtMost(("dice_sum",), "dice_cases"),
    AtMost(("dice_cases",), CASES),
)
CELLS = (Mean("dice_cases", ("dice_sum",), ("intersection", "volumes", "false_positive_mm3")),)
MASK, VOXEL_MM3, OUTSIDE_MM3 = "mask", "voxel_mm3", "outside_mm3"
IGNORED = 255  # of a mask: nobody drew anything there
SURE = 30.0  # logits this far apart are a certainty


class Segmentation(Scored):
    """Logits (B, 1 + S, D, H, W), background first, against a label map.

    Targets: ``mask`` int (B, 1, D, H, W) or (B, D, H, W), 0 background, i for structure i (of those within each other
    the innermost), 255 where nobody drew anything: neither trained nor scored; ``voxel_mm3`` (B,) volume of
    a voxel, 1 where absent; ``outside_mm3`` (B, S or another width) true volume per structure that the crop cut off, 0
    where absent: it counts as missed.
    """

    kind = "segmentation"
    primary = "dsc_agg"
    bounds = BOUNDS
    signed = frozenset()
    cells = CELLS

    def __init__(self, spec: SegmentationTask):
        self.structures = list(spec.structures)
        self.outputs = 1 + len(self.structures)
        self.members = [_members(name, spec) for name in self.structures]  # places in the map, from 1
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)

    @property
    def sum_shapes(self) -> Shapes:
        per_structure = ("intersection", "volumes", "dice_sum", "dice_cases", "false_positive_mm3")
        shapes: Shapes = dict.fromkeys(per_structure, (len(self.structures),))
        return shapes | {"cases": ()}

    def head(self, dim: int) -> nn.Module | None:
        return None  # the decoder part ends in logits

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        labels = _label_map(batch).unsqueeze(1)
        ignored = labels == IGNORED
        if not bool(ignored.any()):
            return self._loss(output.float(), labels)
        sure = torch.full_like(output[:1, :, :1, :1, :1], -SURE).float()
        sure[:, 0] = SURE  # certain and right: no gradient, and nothing that counts in an overlap
        return self._loss(torch.where(ignored, sure, output.float()), labels.masked_fill(ignored, 0))

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """Volumes in mm3 per case: ``intersection``, ``predicted`` and ``truth``, each (S,)."""
        labels, predicted = _label_map(batch), output.argmax(dim=1)
        predicted = predicted.masked_fill(labels == IGNORED, 0)
        voxel = batch.target.get(VOXEL_MM3, torch.ones(len(labels)))
        is_true, is_predicted = (
            torch.stack([_is_one_of(x, members) for members in self.members], dim=1).flatten(2)
            for x in (labels, predicted)
        )  # (B, S, N)
        counts = {"intersection": is_true & is_predicted, "predicted": is_predicted, "truth": is_true}
        volumes = {name: to_numpy(hit.sum(dim=2)) * to_numpy(voxel)[:, None] for name, hit in counts.items()}
        if OUTSIDE_MM3 in batch.target:
            outside = to_numpy(batch.target[OUTSIDE_MM3])[:, : len(self.structures)]
            volumes["truth"][:, : outside.shape[1]] += outside
        return [{name: volume[i] for name, volume in volumes.items()} for i in range(len(labels))]

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Sums over cases. A structure absent from truth and prediction alike has no Dice and is skipped there."""
        width = len(self.structures)
        both, predicted, truth = (
            column(observations, name, width=width) for name in ("intersection", "predicted", "truth")
        )
        volumes = predicted + truth
        scored = volumes > 0
        dice = np.divide(2 * both, volumes, out=np.zeros_like(volumes), where=scored)
        return {
            "cases": np.array(float(len(observations))),
            "intersection": both.sum(axis=0),
            "volumes": volumes.sum(axis=0),
            "dice_sum": dice.sum(axis=0),
            "dice_cases": scored.sum(axis=0).astype(np.float64),
            "false_positive_mm3": np.where(truth == 0, predicted, 0.0).sum(axis=0),
        }

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """``dsc_agg`` and ``dice`` (mean over cases), each also per structure and averaged over structures."""
        aggregated = dsc_agg(sums["intersection"], sums["volumes"])
        dice = dsc_agg(sums["dice_sum"] / 2, sums["dice_cases"])  # a mean over cases is the same ratio
        named = {f"dsc_agg_{s}": value for s, value in zip(self.structures, aggregated, strict=True)}
        named |= {f"dice_{s}": value for s, value in zip(self.structures, dice, strict=True)}
        return {"dsc_agg": mean_defined(aggregated), "dice": mean_defined(dice), **named}


def _members(structure: str, spec: SegmentationTask) -> list[int]:
    """Places, from 1, of a structure and of those within it."""
    names = list(spec.structures)
    return [names.index(name) + 1 for name in [structure, *spec.within.get(structure, [])]]


def _is_one_of(labels: Tensor, places: Sequence[int]) -> Tensor:
    found = labels == places[0]
    for place in places[1:]:
        found = found | (labels == place)
    return found


def _label_map(batch: Batch) -> Tensor:
    """(B, D, H, W) labels."""
    mask = batch.target[MASK]
    return (mask[:, 0] if mask.dim() == 5 else mask).long()
