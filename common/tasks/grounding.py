"""Grounding: boxes of structures that prompts ask for, as GLIP learns and COCO scores them (Li et al., CVPR 2022).

Cells of the frozen model's deepest grid are the regions. A cell learns a box whose middle it is near to: the scores of
the phrase's words by focal loss over all words, and the box by GIoU. What leaves are boxes found and boxes that are
wrong, by bin of their score; a patient adds at most `most` of them to a row, so a cell of `most` times the minimum is
of enough patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.data.box_utils import box_pair_giou, non_max_suppression
from torch import Tensor, nn

from common.adapters.grounding import LIMIT
from common.config.task import GroundingTask
from common.data.batch import Batch
from common.metrics import SCORE_BINS, mean_defined, score_bins
from common.metrics.detection import IOU, MOST_TRUTHS, Boxes, average_precision, matched
from common.protocol.messages import Sums
from common.tasks.base import Observation, Scored, Shapes, to_numpy
from common.tasks.bounds import CASES, AtMost
from common.tasks.cells import Cells, Histogram, Mean
from common.tasks.regions import Regions

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
BOX_WEIGHT = 2.0  # of the boxes' loss beside the words'
CANDIDATES, OVERLAP = 64, 0.5  # of one structure: cells looked at, and how far two boxes kept may overlap
FOUND, WRONG, TRUTHS, HOLDERS = "found", "wrong", "truths", "holders"


class Grounding(Scored):
    """Outputs (B, S x L + sides, d, h, w), as `common.adapters.grounding` makes them.

    Targets: ``boxes`` (B, 16, 7): of each box of a case its structure's place, from 0, and its sides (z0, y0, x0, z1,
    y1, x1) in voxels of the view, half-open; -1 beyond them. ``known`` (B, S): 1 where the center outlines a structure
    at all, else its words are neither learned nor scored. ``size`` (B, 3): the volume's sides. ``slice`` (B,): the
    axial slice that is looked at, -1 for all. What the view cuts off is no box: scores are of what is in view.
    """

    kind = "grounding"
    primary = "ap"
    signed = frozenset()

    def __init__(self, spec: GroundingTask):
        self.spec = spec
        self.structures = list(spec.structures)
        self.outputs = spec.sides
        self.bounds: Sequence[AtMost] = (
            AtMost((HOLDERS,), CASES),
            AtMost((TRUTHS,), CASES, factor=1 / MOST_TRUTHS),
            AtMost((FOUND, WRONG), CASES, factor=1 / spec.most, over=(-1,)),
        )
        self.cells: Sequence[Cells] = (
            Mean(HOLDERS, (TRUTHS,)),
            *(Histogram((name,), of="", varies=True, each=spec.most) for name in (FOUND, WRONG)),
        )

    @property
    def sum_shapes(self) -> Shapes:
        rows = (len(self.structures), len(IOU), SCORE_BINS)
        return {"cases": (), HOLDERS: rows[:1], TRUTHS: rows[:1], FOUND: rows, WRONG: rows}

    def head(self, dim: int) -> nn.Module | None:
        return None  # `common.adapters.grounding`

    # ------------------------------------------------------------------------------------------------------- loss

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean over cases of the focal loss over words, by the number of cells that learn a box, and of 1 - GIoU."""
        return self._mean(output, batch, gamma=GAMMA, boxes=BOX_WEIGHT)

    def likelihood_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The words' binary cross-entropy, weighted as in the loss; neither its focus nor GIoU is a likelihood."""
        return self._mean(output, batch, gamma=0.0, boxes=0.0)

    def _mean(self, output: Tensor, batch: Batch, *, gamma: float, boxes: float) -> Tensor:
        each = [self._of_case(output[row], batch, row, gamma, boxes) for row in range(len(output))]
        return torch.stack(each).mean()

    def _of_case(self, output: Tensor, batch: Batch, row: int, gamma: float, boxes: float) -> Tensor:
        regions = self._regions(output, batch, row)
        truth, known = _there(batch.target["boxes"][row]), batch.target["known"][row]
        truth = truth[known[truth[:, 0].long()].bool()].to(output.device)
        mine = regions.assigned(truth[:, 1:])  # (N,) places in truth, -1 of none
        positive = mine >= 0
        wanted = torch.zeros_like(regions.scores)  # (N, S, L)
        wanted[positive, truth[mine[positive], 0].long()] = 1.0
        learned = (regions.scores > -LIMIT) & known.bool().to(output.device)[None, :, None]
        each = token_focal(regions.scores, wanted, gamma=gamma)
        number = positive.sum().clamp(min=1)
        found = torch.where(learned, each, torch.zeros_like(each)).sum() / number
        if boxes and bool(positive.any()):
            overlap = box_pair_giou(regions.boxes[positive], truth[mine[positive], 1:])
            found = found + boxes * (1 - overlap).sum() / number
        return found

    def _regions(self, output: Tensor, batch: Batch, row: int) -> Regions:
        size, at = batch.target["size"][row].tolist(), int(batch.target["slice"][row])
        return Regions(output.float(), size, structures=len(self.structures), sides=self.outputs, at=at)

    # ------------------------------------------------------------------------------------------------------ scores

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """``box`` (K, 6), ``score`` and ``of`` (K,) of what was found; ``truth`` (M, 6) and ``truth_of`` (M,)."""
        return [self._observed(output[row], batch, row) for row in range(len(output))]

    def _observed(self, output: Tensor, batch: Batch, row: int) -> Observation:
        known = batch.target["known"][row]
        found = self.found(self._regions(output, batch, row), [i for i in range(len(known)) if known[i]])
        truth = _there(batch.target["boxes"][row])
        truth = truth[known[truth[:, 0].long()].bool()]
        boxes, scores, of = found
        return {
            "box": to_numpy(boxes), "score": to_numpy(scores), "of": to_numpy(of),
            "truth": to_numpy(truth[:, 1:]), "truth_of": to_numpy(truth[:, 0]), "known": to_numpy(known),
        }  # fmt: skip

    def found(self, regions: Regions, places: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 6), probabilities (K,) and structures (K,): of each structure the best that overlap little."""
        kept = []
        for place in places:
            scores, cells = regions.probability(place).topk(min(CANDIDATES, len(regions.boxes)))
            boxes = regions.boxes[cells]
            own = torch.as_tensor(non_max_suppression(boxes, scores, OVERLAP, max_proposals=self.spec.most))
            kept.append((boxes[own], scores[own], torch.full((len(own),), float(place))))
        if not kept:
            return regions.boxes[:0], regions.boxes[:0, 0], regions.boxes[:0, 0]
        boxes, scores, of = (torch.cat(parts) for parts in zip(*kept, strict=True))
        return boxes, scores, of

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Boxes by structure, threshold of overlap and bin of their score."""
        total = {name: np.zeros(shape) for name, shape in self.sum_shapes.items()}
        total["cases"] = np.array(float(len(observations)))
        for record in observations:
            picture = boxes_of(record)
            for place in range(len(self.structures)):
                self._add(total, picture, place)
        return total

    def _add(self, total: Mapping[str, np.ndarray], picture: Boxes, place: int) -> None:
        scores, hits, there = matched(picture, place)
        total[TRUTHS][place] += there
        total[HOLDERS][place] += there > 0
        for score, bin, hit in zip(scores, score_bins(_logit(scores)), hits.T, strict=True):
            assert np.isfinite(score)
            total[FOUND][place, :, bin] += hit
            total[WRONG][place, :, bin] += ~hit

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """COCO's ``ap`` (mean over ten thresholds of overlap), ``ap50`` and ``ap75``, each also by structure."""
        rows = [
            [average_precision(*pair, float(truths)) for pair in zip(found, wrong, strict=True)]
            for found, wrong, truths in zip(sums[FOUND], sums[WRONG], sums[TRUTHS], strict=True)
        ]
        each = {
            "ap": [mean_defined(row) for row in rows],
            "ap50": [row[0] for row in rows],
            "ap75": [row[5] for row in rows],
        }
        named = {f"{n}_{s}": v for n, values in each.items() for s, v in zip(self.structures, values, strict=True)}
        return {name: mean_defined(values) for name, values in each.items()} | named


def token_focal(logits: Tensor, targets: Tensor, *, gamma: float = GAMMA) -> Tensor:
    """Binary focal loss of each word (Lin et al., ICCV 2017), alpha 0.25; shaped like the logits."""
    cross = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    right = torch.where(targets > 0, logits, -logits).sigmoid()
    alpha = torch.where(targets > 0, ALPHA, 1 - ALPHA)
    return alpha * (1 - right) ** gamma * cross


def boxes_of(record: Observation) -> Boxes:
    """A case's record, as detection is scored."""
    of, truth_of = (record[name].astype(np.int64) for name in ("of", "truth_of"))
    return Boxes(record["box"].reshape(-1, 6), record["score"], of, record["truth"].reshape(-1, 6), truth_of)


def _there(boxes: Tensor) -> Tensor:
    """The boxes (M, 7) that stand in a padded table."""
    return boxes[boxes[:, 0] >= 0].float()


def _logit(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(scores, 1e-9, 1 - 1e-9)
    return np.log(clipped) - np.log1p(-clipped)
