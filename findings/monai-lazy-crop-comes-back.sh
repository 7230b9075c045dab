#!/usr/bin/env bash
# A lazy MONAI pipeline puts back what a crop took away.
#
# Compose(..., lazy=True) joins the spatial transforms and resamples the ORIGINAL image once. A crop followed by a
# pad, or by ResizeWithPadOrCrop, then is a grid that reaches beyond the crop, and the voxels there are read from the
# original image instead of being padding. The same list without `lazy` pads with zeros. The shapes of the two
# results agree, and no interpolation is involved (whole-voxel shifts).
#
# No misuse: the transforms are all marked as able to be lazy, and `lazy=True` is documented as a matter of speed and
# fewer interpolations. MONAI 6850 (open) is about interpolation and padding modes, not about this; no thread was
# found.
# For medical imaging: a crop that removes the face, the table or another lesion before padding to the network's size
# removes nothing in lazy mode; the two modes train different networks.
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
from monai.data import MetaTensor
from monai.transforms import BorderPad, CenterSpatialCrop, Compose, ResizeWithPadOrCrop, SpatialPad

print("monai", monai.__version__, "torch", torch.__version__, "- rows 1..8; the crop keeps 3..6")
image = MetaTensor(torch.arange(1.0, 9.0).view(1, 8, 1).repeat(1, 1, 2))
crop = CenterSpatialCrop([4, 2])
for second in (SpatialPad([8, 2]), ResizeWithPadOrCrop([8, 2]), BorderPad([2, 0])):
    eager, lazy = Compose([crop, second])(image), Compose([crop, second], lazy=True)(image)
    print(f"{type(second).__name__:19s} eager {eager[0, :, 0].int().tolist()}  lazy {lazy[0, :, 0].int().tolist()}")
    assert eager.shape == lazy.shape
    assert eager[0, :, 0].tolist() == [0, 0, 3, 4, 5, 6, 0, 0]
    assert lazy[0, :, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8], "lazy mode now pads after a crop"
PY
