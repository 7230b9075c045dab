#!/usr/bin/env bash
# A peft adapter started with "pissa_niter_N" does not come back from its own file.
#
# PiSSA takes the largest singular directions out of the base weight and puts them into the adapter. The file holds
# the adapter alone; when it is loaded, peft repeats the decomposition on the fresh base to take the same part out.
# "pissa" is exact and comes back to rounding. "pissa_niter_N" uses torch.svd_lowrank, which starts from random
# numbers: what is taken out at loading differs from what was taken out at training, and base plus adapter is another
# network. With 16 iterations, the number that the documentation recommends, it is still off, because the spectrum of
# a weight is flat where it is cut. Two sites that each start from the same base have two different frozen bases as
# well.
#
# No misuse: save_pretrained and from_pretrained, nothing trained in between, the same base; no warning. No thread was
# found.
# For a federation: adapters are sent without the base they belong to; this start makes that impossible unless all
# sites share a seed at that very moment.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q peft==0.21.2 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import copy, tempfile, warnings, peft, torch
warnings.filterwarnings("ignore")
torch.manual_seed(0)
base, data = torch.nn.Sequential(torch.nn.Linear(256, 256)).eval(), torch.randn(64, 256)

def off(start):
    config = peft.LoraConfig(r=8, lora_alpha=8, target_modules=["0"], init_lora_weights=start)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model = peft.get_peft_model(copy.deepcopy(base), config).eval()
        before = model(data)
        model.save_pretrained(folder)
        after = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()(data)
    return float((after - before).norm() / before.norm())

print("peft", peft.__version__, "torch", torch.__version__, "- relative change of the output by saving and loading")
seen = {start: off(start) for start in (True, "pissa", "pissa_niter_4", "pissa_niter_16")}
for start, change in seen.items():
    print(f"init_lora_weights={start!r}: {change:.1e}")
assert seen[True] < 1e-5 and seen["pissa"] < 1e-5
assert seen["pissa_niter_4"] > 1e-2 and seen["pissa_niter_16"] > 1e-3, "the round trip is now exact"
PY
