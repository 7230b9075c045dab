#!/usr/bin/env bash
# Opacus clips by gradients that are not the gradients, for convolutions that pad by reflection or repetition.
#
# A Conv1d, Conv2d or Conv3d may pad by "reflect", "replicate" or "circular" instead of zeros. Opacus's own rule for
# convolutions (grad_sample_mode "hooks", the default, and "ghost") pads the saved input with zeros whatever the layer
# says. The per-sample gradients, and with them the norms that are clipped and the update that is released, are off by
# 20 to 70 % of the largest entry. torch's own gradient of the same batch is right, and "functorch" and "ew" are too.
#
# No misuse: the layers pass Opacus's ModuleValidator and make_private; nothing is said. No thread was found.
# For medical imaging: such padding is usual in 3D networks, against dark borders. Training goes in a wrong direction
# at the borders; the clipping bound itself still holds for what is added up.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q opacus==1.6.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import copy, warnings, opacus, torch
warnings.filterwarnings("ignore")
from opacus.grad_sample.utils import wrap_model
from opacus.validators import ModuleValidator

def off(mode, padding):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3, padding=1, padding_mode=padding))
    image, weight = torch.randn(3, 2, 6, 6, 6), torch.randn(3, 4, 6, 6, 6)
    assert ModuleValidator.is_valid(network)
    single = []
    for k in range(3):  # one image at a time, by torch alone
        alone = copy.deepcopy(network)
        (alone(image[k : k + 1]) * weight[k : k + 1]).sum().backward()
        single.append(alone[0].weight.grad)
    true = torch.stack(single)
    wrapped = wrap_model(copy.deepcopy(network), grad_sample_mode=mode, loss_reduction="sum")
    (wrapped(image) * weight).sum().backward()
    seen = next(p for p in wrapped.parameters() if p.dim() == 5).grad_sample
    return float((seen - true).abs().max() / true.abs().max())

print("opacus", opacus.__version__, "torch", torch.__version__, "- largest error of per-sample gradients, relative")
paddings, modes = ("zeros", "reflect", "replicate", "circular"), ("hooks", "functorch")
seen = {(mode, pad): off(mode, pad) for pad in paddings for mode in modes}
for (mode, pad), error in seen.items():
    print(f"{pad:9s} {mode:9s} {error:.1e}")
for pad in ("reflect", "replicate", "circular"):
    assert seen["functorch", pad] < 1e-4
    assert seen["hooks", pad] > 0.05, f"'hooks' now follows {pad} padding"
assert seen["hooks", "zeros"] < 1e-4
PY
