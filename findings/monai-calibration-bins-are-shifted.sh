#!/usr/bin/env bash
# MONAI's new calibration error puts predictions on a bin's edge into the other bin than it says, and `right` does
# nothing.
#
# `calibration_binning` (MONAI 1.6) documents bins [left, right) by default and (left, right] with `right=True`. The
# edges are linspace(0, 1 + eps): each inner edge lies a little above 0.25, 0.5, 0.75, so a prediction of exactly 0.5
# falls below it with either setting (and torch.bucketize's `right` means the opposite of what is documented here).
#
# No misuse: exact quarters are what four raters, four folds or four-member ensembles give. No thread was found.
# For a federation: the maximum calibration error of such an ensemble differs from numpy's histogram rule and from
# sites that compute it themselves; here 0.5 instead of 0.75, without a word.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q monai==1.6.1 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import warnings
warnings.filterwarnings("ignore")
import monai, numpy as np, torch
from monai.metrics import CalibrationErrorMetric
from monai.metrics.calibration import calibration_binning

votes = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 5)
truth = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0]).view(1, 1, 5)
documented = np.histogram(votes.numpy().ravel(), bins=4, range=(0, 1))[0].tolist()  # [left, right), the last one closed
print("monai", monai.__version__, "torch", torch.__version__, "- predictions", votes.ravel().tolist(), "in 4 bins")
print("by the documented rule [left, right): counts", documented, "and 0.75, for the one vote of 0.25 that was true")
for right in (False, True):
    counts = calibration_binning(votes, truth, num_bins=4, right=right)[2].ravel().int().tolist()
    metric = CalibrationErrorMetric(num_bins=4, calibration_reduction="maximum", right=right)
    metric(votes, truth)
    largest = metric.aggregate().item()
    print(f"right={right}: counts {counts}, maximum calibration error {largest:.3f}")
    assert counts == [2, 1, 1, 1] and abs(largest - 0.5) < 1e-6, "edges now fall as documented"
assert documented == [1, 1, 1, 2]
PY
