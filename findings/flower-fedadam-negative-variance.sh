#!/usr/bin/env bash
# Flower's FedAdam makes BatchNorm's running variance negative, and the joint model answers NaN.
#
# The strategies average whatever is in the ArrayRecord, and Flower's examples fill it with `model.state_dict()`,
# which holds BatchNorm's running mean and variance beside the weights. FedAdam moves every number by about eta,
# whatever its size (that is what Adam does). A running variance of 0.02 that all sites agree to lower to 0.015 is
# moved by 0.025 (all values default) and becomes -0.005; the square root in the layer is then NaN for every image.
# FedAvg of the same replies gives 0.015.
#
# No misuse: default FedAdam, valid state dicts whose variances are all positive; the paper (arXiv 2003.00295) speaks
# of parameters, the strategy has no way to name the buffers. Nothing is raised or logged.
# For a federation: networks with BatchNorm need their statistics kept out of the record, or FedAvg'd beside it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q flwr==1.41.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import logging, numpy as np, torch
from importlib.metadata import version
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what a running ServerApp has
logging.getLogger("flwr").setLevel(logging.ERROR)

class Grid:
    def get_node_ids(self): return [1, 2]

def layer(variance):
    norm = torch.nn.BatchNorm3d(2).eval()
    norm.running_var.fill_(variance)
    return norm

def reply(variance):
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord(layer(variance).state_dict()), "metrics": metrics})
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))

def joint(strategy):
    list(strategy.configure_train(1, ArrayRecord(layer(0.02).state_dict()), ConfigRecord(), Grid()))
    arrays, _ = strategy.aggregate_train(1, [reply(0.015), reply(0.015)])
    norm = torch.nn.BatchNorm3d(2).eval()
    norm.load_state_dict(arrays.to_torch_state_dict())
    return float(norm.running_var[0]), float(norm(torch.randn(1, 2, 4, 4, 4)).detach().mean())

print("flwr", version("flwr"), "torch", torch.__version__, "- running variance 0.02 at the server, 0.015 at both sites")
averaged, adam = joint(FedAvg()), joint(FedAdam())
print("FedAvg:  running variance %.4f, mean output of the layer %.4f" % averaged)
print("FedAdam: running variance %.4f, mean output of the layer %.4f" % adam)
assert abs(averaged[0] - 0.015) < 1e-6 and np.isfinite(averaged[1])
assert adam[0] < 0 and np.isnan(adam[1]), "the variance is no longer negative"
PY
