#!/usr/bin/env bash
# Flower's QFedAvg with q = 0 is not FedAvg: it forgets how many cases a site has.
#
# The docstring of QFedAvg says "When set to 0, q-FedAvg is equivalent to FedAvg". FedAvg weighs by `num-examples`;
# QFedAvg reads that number for the metrics alone and takes a plain mean of the models. A site with 1 case and a site
# with 99 have the same say, with q = 0 and with every other q. (In the paper, arXiv 1905.10497, sites are drawn with
# probability p_k, which is where the counts enter; Flower draws all sites alike.)
#
# No misuse: q is at the value the sentence speaks of, both sites report the same loss.
# For a federation of hospitals of unlike size: changing q from 0 upward is compared with a baseline that is not
# FedAvg.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q flwr==1.41.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import logging, numpy as np
from importlib.metadata import version
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, QFedAvg
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what a running ServerApp has
logging.getLogger("flwr").setLevel(logging.ERROR)

class Grid:
    def get_node_ids(self): return [1, 2]

def reply(value, cases):
    metrics = MetricRecord({"num-examples": cases, "train_loss": 1.0})
    content = RecordDict({"arrays": ArrayRecord([np.array([value])]), "metrics": metrics})
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))

def mean(strategy):
    list(strategy.configure_train(1, ArrayRecord([np.zeros(1)]), ConfigRecord(), Grid()))
    arrays, _ = strategy.aggregate_train(1, [reply(0.0, 1), reply(10.0, 99)])
    return float(arrays.to_numpy_ndarrays()[0][0])

print("flwr", version("flwr"), "- sites: 0.0 from 1 case, 10.0 from 99 cases")
fedavg, q_zero = mean(FedAvg()), mean(QFedAvg(client_learning_rate=0.1, q=0.0))
print("FedAvg:", fedavg, " QFedAvg with q = 0:", q_zero)
assert abs(fedavg - 9.9) < 1e-9
assert abs(q_zero - 5.0) < 1e-6, "QFedAvg with q = 0 no longer takes the plain mean"
PY
