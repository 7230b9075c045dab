#!/usr/bin/env bash
# MONAI's new indicator of domain shift depends on the order in which the target's patients stand.
#
# EmbeddingCollapseMetric (MONAI 1.6) reports `domain_shift` between embeddings [N, D] and target_embeddings [M, D]:
# 1.0 is documented as identical representations. It is linear CKA, which compares two descriptions of the SAME cases,
# row by row; two domains have no such pairs. The same embeddings in another order fall from 1 to almost 0, and so do
# the same embeddings with one row more, because unequal sizes are evened out by a random permutation. A target that
# is moved and scaled, which is a shift, still scores 1.
#
# No misuse: both shapes are documented, N need not be M, and nothing asks for an order. MONAI 9129 is about another
# error of this function (a bias that comes with few cases); no thread about the order was found.
# For a federation: two hospitals have no common order of patients, so the number tells how their files are sorted.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q monai==1.6.1 numpy==2.4.6 scipy==1.17.1
"$work/venv/bin/python" - <<'PY'
import monai, numpy as np, torch
from monai.metrics import EmbeddingCollapseMetric, FIDMetric

def cka(a, b):
    a, b = (v.double().numpy() - v.double().numpy().mean(0) for v in (a, b))
    return np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))

torch.manual_seed(0)
source = torch.randn(200, 16)
shuffled = source[torch.randperm(200)]
metric = EmbeddingCollapseMetric(include_indicators=["domain_shift"])
print("monai", monai.__version__, "torch", torch.__version__, "- 200 embeddings of length 16, against")
seen = {}
for name, target in {
    "themselves": source,
    "themselves in another order": shuffled,
    "themselves and one of them again": torch.cat([source, source[:1]]),
    "themselves times 5 plus 100": source * 5 + 100,
}.items():
    seen[name] = metric(source, target_embeddings=target)["domain_shift"].item()
    distance = float(FIDMetric()(target.double(), source.double()))
    print(f"{name:33s} domain_shift {seen[name]:.3f}, MONAI's own Frechet distance {distance:.4f}")
    if len(target) == 200:
        assert abs(seen[name] - cka(source, target)) < 1e-3, "no longer CKA of the rows as they stand"
assert abs(float(FIDMetric()(shuffled.double(), source.double()))) < 1e-3
assert seen["themselves"] > 0.999 and seen["themselves times 5 plus 100"] > 0.999
assert seen["themselves in another order"] < 0.2, "the order no longer matters"
assert seen["themselves and one of them again"] < 0.2, "one row more no longer matters"
PY
