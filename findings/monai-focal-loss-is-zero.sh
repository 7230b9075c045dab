#!/usr/bin/env bash
# MONAI's softmax FocalLoss without background is exactly zero for two classes, whatever the network predicts.
#
# `include_background=False` drops the first channel of logits and labels BEFORE the softmax. Of two channels one is
# left; a softmax over one channel is 1, its logarithm 0: loss and gradient are 0.0 for every input and the network
# never learns. With three classes the softmax runs over the foreground alone, so voxels of background, which have no
# foreground label, cost nothing: a network that paints everything as foreground is not penalized. The documentation
# says "if False, channel index 0 (background category) is excluded from the loss calculation".
#
# No misuse: two documented options; the DiceFocalLoss case of 2022 (MONAI 5413) was mended, this one not. No warning.
# For a federation: a site's lesion/background network reports a perfect loss of 0 from the first batch on.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q monai==1.6.1 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import warnings
warnings.filterwarnings("ignore")
import monai, torch
from monai.losses import FocalLoss

def wanted(logits, labels):  # focal loss of Lin et al. with softmax, mean over the foreground channels
    chance = logits.softmax(1)
    hot = torch.zeros_like(logits).scatter_(1, labels, 1.0)
    return (-hot * (1 - chance) ** 2 * chance.log())[:, 1:].mean()

print("monai", monai.__version__, "torch", torch.__version__)
loss = FocalLoss(include_background=False, to_onehot_y=True, use_softmax=True)
torch.manual_seed(0)
for classes in (2, 3):
    logits = (3 * torch.randn(2, classes, 8, 8)).requires_grad_()
    labels = torch.randint(0, classes, (2, 1, 8, 8))
    value = loss(logits, labels)
    value.backward()
    print(f"{classes} classes: loss {value.item():.4f}, by the formula {wanted(logits, labels).item():.4f}, "
          f"largest gradient {logits.grad.abs().max().item():.1e}")
    if classes == 2:
        assert value.item() == 0.0 and not logits.grad.any(), "the loss of two classes is no longer zero"
    assert abs(value.item() - wanted(logits, labels).item()) > 0.05
PY
