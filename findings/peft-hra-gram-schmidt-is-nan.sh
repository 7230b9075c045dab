#!/usr/bin/env bash
# peft's HRA adapter with Gram-Schmidt (apply_GS=True) gives networks that answer NaN before the first step.
#
# HRA is a chain of Householder reflections. So that they cancel at the start, peft initializes the vectors in equal
# pairs. With `apply_GS=True` the vectors are made orthogonal first, and the second of each equal pair leaves a rest
# that is zero but for rounding. Where it is exactly zero, 0 / |0| is NaN and so is every number after it (about one
# layer in two at r=8, the default); elsewhere a reflection in a direction made of rounding errors remains. A network
# of twelve layers is NaN for practically every seed.
#
# No misuse: both are documented options of HRAConfig, and r is even, as its documentation asks. The author wrote that
# `apply_GS=True` cannot start as the identity (peft 1864) and so left it out of the tests; NaN was not spoken of.
# For a federation: a site that tries the option sends an update of NaN, and one NaN is enough to spoil the round's
# mean.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q peft==0.21.2 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import warnings, peft, torch
warnings.filterwarnings("ignore")

def bad(rank, gram_schmidt, seeds=20):
    count = 0
    for seed in range(seeds):
        torch.manual_seed(seed)
        network = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(12)])
        config = peft.HRAConfig(target_modules=[str(k) for k in range(12)], r=rank, apply_GS=gram_schmidt)
        with torch.no_grad():
            count += bool(peft.get_peft_model(network, config)(torch.randn(3, 16)).isnan().any())
    return count

print("peft", peft.__version__, "torch", torch.__version__)
for rank in (2, 4, 8):
    print(f"r={rank}: of 20 untrained networks answer NaN: {bad(rank, False)} without, {bad(rank, True)} with apply_GS")
assert bad(8, False) == 0
assert bad(8, True) > 10, "apply_GS no longer gives NaN"
PY
