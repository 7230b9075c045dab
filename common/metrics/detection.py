"""Detection: COCO's average precision, from counts by score that add up over centers, and exactly from boxes at hand.

Counts are of boxes found and of boxes that are wrong, by bin of their score. Boxes of one bin count at once, so that
the order of patients with equal scores makes no difference; with every box in a bin of its own the value is COCO's.
Boxes are (z0, y0, x0, z1, y1, x1), half-open, in any unit: ratios of volumes do not change with it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IOU = np.round(np.arange(0.5, 1.0, 0.05), 2)  # COCO's ten thresholds
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_TRUTHS = 16  # boxes of a case that are kept, the largest: targets of one shape
MOST_DETECTIONS = 100  # of one class in one picture, as COCO has it


@dataclass(frozen=True)
class Boxes:
    """What was found in one picture, and what is there.

    Args:
        box, score, of: (K, 6), (K,) and (K,) class numbers of what was found.
        truth, truth_of: (M, 6) and (M,) of what is there.
    """

    box: np.ndarray
    score: np.ndarray
    of: np.ndarray
    truth: np.ndarray
    truth_of: np.ndarray


def matched(boxes: Boxes, of: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (K,) of the boxes of one class, whether each is found at each threshold (T, K), and how many there are.

    COCO's matching (MONAI's): from the highest score on, each box takes the free truth that it overlaps most.
    """
    own, there = boxes.of == of, boxes.truth_of == of
    if not own.any() or not there.any():
        return boxes.score[own], np.zeros((len(IOU), int(own.sum())), bool), int(there.sum())
    alone = Boxes(boxes.box[own], boxes.score[own], boxes.of[own], boxes.truth[there], boxes.truth_of[there])
    [found] = _matching([alone], IOU)
    return found[of]["dtScores"], found[of]["dtMatches"] > 0, int(there.sum())


def _matching(pictures: Sequence[Boxes], thresholds: np.ndarray) -> list[dict[int, dict[str, np.ndarray]]]:
    """MONAI's matching of each picture, by class."""
    from monai.apps.detection.metrics.matching import matching_batch
    from monai.data.box_utils import box_iou

    return matching_batch(
        lambda one, other: np.asarray(box_iou(one, other)),
        [float(threshold) for threshold in thresholds],
        [picture.box for picture in pictures],
        [picture.of for picture in pictures],
        [picture.score for picture in pictures],
        [picture.truth for picture in pictures],
        [picture.truth_of for picture in pictures],
        max_detections=MOST_DETECTIONS,
    )


def average_precision(found: np.ndarray, wrong: np.ndarray, truths: float) -> float | None:
    """Mean precision at 101 recalls of boxes (bins,), bins in ascending order of the score; None where nothing
    is there.

    The precision at a recall is the best that this recall or a higher one has.
    """
    if truths <= 0:
        return None
    hits, alarms = np.cumsum(found[::-1]), np.cumsum((found + wrong)[::-1])
    some = alarms > 0
    recall = np.minimum(hits[some] / truths, 1.0)
    precision = np.maximum.accumulate((hits[some] / alarms[some])[::-1])[::-1]
    reached = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(reached, len(precision))].mean())


def exact_in_3d(pictures: Sequence[Boxes], classes: Sequence[str]) -> dict[str, float | None]:
    """AP of each class by MONAI's `COCOMetric`, where patients are at hand; None of a class that is nowhere."""
    from monai.apps.detection.metrics.coco import COCOMetric

    metric = COCOMetric(  # its own range is 0.1 to 0.5
        classes=list(classes), iou_list=(0.5,), iou_range=(0.5, 0.95, 0.05), max_detection=(MOST_DETECTIONS,)
    )
    results = _matching(pictures, metric.iou_thresholds)
    if not any(results):
        return dict.fromkeys(classes)
    values, name = metric(results)[0], f"mAP_IoU_0.50_0.95_0.05_MaxDet_{MOST_DETECTIONS}"
    there = {int(of) for picture in pictures for of in picture.truth_of}
    # MONAI says -1 of a class that is nowhere, and would take that into its mean.
    return {c: float(values[f"{c}_{name}"]) if i in there else None for i, c in enumerate(classes)}


def exact_in_2d(pictures: Sequence[Boxes], classes: Sequence[str]) -> dict[str, float | None]:
    """AP of each class by pycocotools, where patients are at hand; None of a class that is nowhere.

    Each picture is one slice: the first axis of its boxes is not looked at.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for picture, boxes in enumerate(pictures, start=1):
        for box, of in zip(boxes.truth, boxes.truth_of, strict=True):
            flat = _coco(box)
            truths.append({"id": len(truths) + 1, "image_id": picture, "category_id": int(of) + 1, "bbox": flat,
                           "area": flat[2] * flat[3], "iscrowd": 0})  # fmt: skip
        for box, of, score in zip(boxes.box, boxes.of, boxes.score, strict=True):
            detections.append({"image_id": picture, "category_id": int(of) + 1, "bbox": _coco(box),
                               "score": float(score)})  # fmt: skip
    if not truths or not detections:
        there = {int(of) for picture in pictures for of in picture.truth_of}
        return {c: 0.0 if i in there else None for i, c in enumerate(classes)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        known = COCO()
        known.dataset = {
            "images": [{"id": picture} for picture in range(1, len(pictures) + 1)],
            "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
            "annotations": truths,
        }
        known.createIndex()
        evaluated = COCOeval(known, known.loadRes(detections), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
    precision = evaluated.eval["precision"][:, :, :, 0, -1]  # (T, R, classes): any area, 100 detections
    return {c: float(v.mean()) if (v := precision[:, :, i]).min() >= 0 else None for i, c in enumerate(classes)}


def _coco(box: np.ndarray) -> list[float]:
    """(z0, y0, x0, z1, y1, x1) as COCO's (x, y, width, height)."""
    return [float(box[2]), float(box[1]), float(box[5] - box[2]), float(box[4] - box[1])]
