"""COCO's golden values, by counts of scores, by pycocotools and by MONAI; and both agree on flat boxes."""

import numpy as np
import pytest
from monai.apps.detection.metrics.coco import COCOMetric

from common.metrics import mean_defined, score_bins
from common.metrics.detection import IOU, Boxes, _matching, average_precision, exact_in_2d, exact_in_3d, matched


def flat(x, y, width, height, *, at=0):
    return [at, y, x, at + 1, y + height, x + width]


def picture(found, truth, *, of=None, truth_of=None):
    boxes, scores = [box for box, _ in found], [score for _, score in found]
    of, truth_of = of or [0] * len(found), truth_of or [0] * len(truth)
    return Boxes(
        np.array(boxes, float).reshape(-1, 6), np.array(scores, float), np.array(of, int),
        np.array(truth, float).reshape(-1, 6), np.array(truth_of, int),
    )  # fmt: skip


GOLDEN = [  # CONTINUAL.md 2.3, measured with pycocotools
    picture(
        [(flat(10, 10, 20, 20), 0.9), (flat(52, 50, 20, 20), 0.8), (flat(80, 80, 10, 10), 0.7)],
        [flat(10, 10, 20, 20), flat(50, 50, 20, 20)],
    ),
    picture([(flat(0, 0, 40, 30), 0.6)], [flat(0, 0, 40, 40)]),
]
BY_THRESHOLD = [0.9158] * 6 + [0.6634] + [0.3366] * 3


def by_counts(pictures, of=0):
    """AP at each threshold from histograms."""
    found, wrong, truths = np.zeros((len(IOU), 256)), np.zeros((len(IOU), 256)), 0
    for one in pictures:
        scores, hits, there = matched(one, of)
        truths += there
        for bin, hit in zip(score_bins(np.log(scores / (1 - scores))), hits.T, strict=True):
            found[:, bin] += hit
            wrong[:, bin] += ~hit
    return [average_precision(f, w, truths) for f, w in zip(found, wrong, strict=True)]


def test_golden_average_precision_of_the_three_ways():
    rows = by_counts(GOLDEN)
    assert rows == pytest.approx(BY_THRESHOLD, abs=5e-5)
    assert np.mean(rows) == pytest.approx(0.716832, abs=5e-7)
    assert exact_in_2d(GOLDEN, ["polyp"])["polyp"] == pytest.approx(0.716832, abs=5e-7)
    assert exact_in_3d(GOLDEN, ["polyp"])["polyp"] == pytest.approx(0.716832, abs=5e-7)


@pytest.mark.parametrize("seed", range(4))
def test_pycocotools_and_monai_agree_on_flat_boxes_and_counts_with_both(seed):
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(6):
        truth = [flat(*rng.integers(0, 60, 2), *rng.integers(8, 30, 2), at=4) for _ in range(rng.integers(0, 4))]
        near = [np.array(box) + np.array([0, *rng.integers(-3, 4, 2), 0, *rng.integers(-3, 4, 2)]) for box in truth]
        false = [flat(*rng.integers(0, 60, 2), *rng.integers(8, 30, 2), at=4) for _ in range(2)]
        boxes = [*near, *false]
        scores = rng.uniform(0.05, 0.95, len(boxes))
        of, truth_of = (rng.integers(0, 2, len(some)).tolist() for some in (boxes, truth))
        pictures.append(picture(list(zip(boxes, scores, strict=True)), truth, of=of, truth_of=truth_of))
    two, three = (exact(pictures, ["a", "b"]) for exact in (exact_in_2d, exact_in_3d))
    for place, name in enumerate("ab"):
        assert two[name] == pytest.approx(three[name], abs=1e-9)
        assert mean_defined(by_counts(pictures, place)) == pytest.approx(two[name], abs=0.03)  # some scores share a bin


def test_a_solid_box_counts_by_volume():
    half = picture([([0, 0, 0, 2, 2, 4], 0.9)], [[0, 0, 0, 2, 2, 8]])  # overlap exactly one half
    assert by_counts([half])[0] == pytest.approx(1.0) and by_counts([half])[1] == 0.0
    assert exact_in_3d([half], ["a"])["a"] == pytest.approx(0.1)


def test_a_class_that_is_nowhere_has_no_value_and_a_missed_one_has_zero():
    missed = picture([], [flat(0, 0, 4, 4)])
    for exact in (exact_in_2d, exact_in_3d):
        assert exact([missed], ["there", "nowhere"]) == {"there": 0.0, "nowhere": None}
    assert average_precision(np.zeros(4), np.ones(4), 0) is None
    assert average_precision(np.zeros(4), np.ones(4), 3) == 0.0


def test_monais_mean_takes_an_absent_class_for_minus_one():
    """TRAPS 16: one class found perfectly and one that nobody has: 0 by MONAI, 1 by pycocotools and here."""
    one, classes = picture([(flat(2, 2, 8, 8), 0.9)], [flat(2, 2, 8, 8)]), ["there", "nowhere"]
    metric = COCOMetric(classes=classes, iou_list=(0.5,), iou_range=(0.5, 0.95, 0.05), max_detection=(100,))
    theirs = metric(_matching([one], metric.iou_thresholds))[0]["mAP_IoU_0.50_0.95_0.05_MaxDet_100"]
    assert theirs == pytest.approx(0.0, abs=1e-9)
    assert mean_defined([mean_defined(by_counts([one], place)) for place in (0, 1)]) == pytest.approx(1.0)


def test_equal_scores_count_at_once_whatever_the_order_of_patients():
    """TRAPS 16: tied scores are 0.5 or 1.0 by the order of patients."""
    found, wrong = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    assert average_precision(found, wrong, 1) == pytest.approx(0.5)
