#!/usr/bin/env bash
# Flower's Krum and MultiKrum choose by rounding noise when the models are float32 and the updates are small.
#
# Krum (arXiv 1703.02757) takes the model with the smallest sum of squared distances to its nearest others. Flower
# computes each distance as |x|^2 + |y|^2 - 2xy of the WHOLE models in their own dtype. Fine-tuned models share nearly
# everything, so two large numbers cancel: at |x|^2 = 1e5 a float32 step is 0.0078, while the true distances are 0.002.
# Distances come out negative, the choice has little to do with them, and now and then it falls on a site whose update
# is three times as long as everyone else's. In float64 the same strategy on the same models never chooses that site.
#
# No misuse: float32 weights straight from a model; 100,000 weights of variance 1, updates of 1e-4 a weight.
# For a federation that adapts a frozen model by small steps the rule is then a draw. (The loop over differences, which
# was in use before the formula was rewritten for speed, does not cancel.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q flwr==1.41.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import logging, numpy as np
from importlib.metadata import version
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Krum
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what a running ServerApp has
logging.getLogger("flwr").setLevel(logging.ERROR)

def reply(values):
    content = RecordDict({"arrays": ArrayRecord([values]), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))

def chosen(models):
    arrays, _ = Krum(num_malicious_nodes=1).aggregate_train(1, [reply(model) for model in models])
    mean = arrays.to_numpy_ndarrays()[0].astype(np.float64)
    return int(np.argmin([np.abs(model - mean).max() for model in models]))

print("flwr", version("flwr"), "- 7 sites, the update of site 3 is three times as long as the others'")
far, same = {"float32": 0, "float64": 0}, 0
for seed in range(20):
    draw = np.random.default_rng(seed)
    base = draw.normal(0, 1, 100_000)
    models = [(base + draw.normal(0, 3e-4 if site == 3 else 1e-4, base.size)).astype(np.float32) for site in range(7)]
    narrow, wide = chosen(models), chosen([model.astype(np.float64) for model in models])
    far["float32"] += narrow == 3
    far["float64"] += wide == 3
    same += narrow == wide
print("runs of 20 with the same choice in float32 and float64:", same)
print("runs of 20 in which Krum chose site 3:", far)
assert far["float64"] == 0
assert same < 15, "Krum now chooses the same in float32 and float64"
PY
