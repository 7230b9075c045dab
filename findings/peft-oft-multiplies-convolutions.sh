#!/usr/bin/env bash
# An untrained OFT adapter of peft on a 3x3 convolution multiplies the layer's input by up to nine.
#
# OFT turns a layer by an orthogonal matrix that starts as the identity, so before training nothing may change (peft
# says so of `init_weights=True`). For a Conv2d peft unfolds the INPUT into overlapping patches, turns them and folds
# them back with torch's F.fold, which sums where patches overlap and is never divided by their number: each inner
# pixel comes back nine times, an edge pixel three to six times. The merged weights are turned correctly, so merging
# or unloading the adapter gives another network than the one that was trained.
#
# No misuse: default settings but for the block size; kernels of 1x1 are right. No thread about it was found (peft
# 1996 and 3150 are about other errors of the same layer).
# For medical imaging, where most layers are convolutions: the adapter trains against inputs nine times too large, and
# the merged file that goes to the sites predicts something else.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q peft==0.21.2 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import copy, warnings, peft, torch
warnings.filterwarnings("ignore")
torch.manual_seed(0)

def compare(kernel):
    network = torch.nn.Sequential(torch.nn.Conv2d(8, 16, kernel, padding=kernel // 2, bias=False)).eval()
    image = torch.ones(1, 8, 9, 9)
    with torch.no_grad():
        before = network(image)[..., 4, 4]
        adapted = peft.get_peft_model(copy.deepcopy(network), peft.OFTConfig(target_modules=["0"], oft_block_size=4)).eval()
        untrained = adapted(image)[..., 4, 4]
        merged = adapted.merge_and_unload()(image)[..., 4, 4]
    return float((untrained / before).mean()), float((merged / before).mean())

print("peft", peft.__version__, "torch", torch.__version__, "- factor at an inner pixel, untrained adapter; 1 is right")
one, three = compare(1), compare(3)
print("kernel 1x1: attached %.3f, merged %.3f" % one)
print("kernel 3x3: attached %.3f, merged %.3f" % three)
assert max(abs(one[0] - 1), abs(one[1] - 1), abs(three[1] - 1)) < 1e-3
assert abs(three[0] - 9) < 1e-2, "the attached adapter no longer multiplies by nine"
PY
