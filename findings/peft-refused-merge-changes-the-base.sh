#!/usr/bin/env bash
# A merge that peft refuses has changed the base weights all the same, and each further try changes them again.
#
# With `lora_bias=True` on a layer without bias peft raises RuntimeError at the merge ("Impossible to merge LoRA
# ..."). By then it has added the update to the weight, and has not noted it: the layer counts as unmerged, so the
# update is in force twice, and after a second try three times. `unmerge_adapter()` says "Already unmerged" and takes
# nothing back. `safe_merge=True` is right in this release (peft 3611 mended that path alone).
#
# No misuse: the option on such a layer is allowed, with a warning that merging "won't be possible"; the code catches
# the error and goes on with the adapter attached, as one does.
# For a federation: a site whose export step fails goes on training from a base that is no longer the shared one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q peft==0.21.2 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import warnings, peft, torch
warnings.filterwarnings("ignore")
torch.manual_seed(0)
network, data = torch.nn.Sequential(torch.nn.Linear(16, 16, bias=False)), torch.randn(8, 16)
frozen = network[0].weight.detach().clone()
config = peft.LoraConfig(target_modules=["0"], lora_bias=True, init_lora_weights=False)
model = peft.get_peft_model(network, config).eval()
layer = model.base_model.model[0]
update = layer.get_delta_weight("default").detach()
print("peft", peft.__version__, "torch", torch.__version__)
moved = []
for attempt in range(3):
    try:
        model.merge_adapter()
    except RuntimeError as error:
        moved.append(float((layer.get_base_layer().weight - frozen).detach().norm() / update.norm()))
        print(f"try {attempt + 1}: {str(error)[:46]}... merged: {layer.merged}, update in the base weight: {moved[-1]:.2f} times")
model.unmerge_adapter()
left = float((layer.get_base_layer().weight - frozen).detach().norm() / update.norm())
print(f"after unmerge_adapter(): {left:.2f} times")
assert len(moved) == 3 and left > 2.99, "a refused merge now leaves the base weight alone"
PY
