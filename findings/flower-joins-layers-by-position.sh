#!/usr/bin/env bash
# Flower joins models by name in FedAvg, FedMedian and FedTrimmedAvg, and by position in QFedAvg, Bulyan and FedAvgM.
#
# An ArrayRecord is a dictionary of named arrays. The check of the replies compares the SET of names and lets any
# order pass; then three strategies zip the arrays of sites in the order in which each site wrote them. Two tensors of
# one shape (a block's two norms, q and k projections) are averaged with one another, or, if every site writes another
# order than the server, swapped outright. FedAvgM with momentum carries the wrong layer's past and overshoots.
#
# No misuse: the names are right, and FedAvg of the same replies is right. Orders differ in practice: a PEFT state
# dict, a sorted dictionary and a state dict of the whole model list the same tensors differently.
# For a federation: changing the aggregation rule mixes layers without a word, but only where shapes agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q flwr==1.41.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import logging, numpy as np
from importlib.metadata import version
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Bulyan, FedAvg, FedAvgM, FedMedian, QFedAvg
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what a running ServerApp has
logging.getLogger("flwr").setLevel(logging.ERROR)

class Grid:
    def get_node_ids(self): return [1, 2, 3]

def record(names):
    value = {"query": 1.0, "key": 100.0}
    return ArrayRecord({name: Array(np.full(2, value[name])) for name in names})

def reply(names):
    content = RecordDict({"arrays": record(names), "metrics": MetricRecord({"num-examples": 1, "train_loss": 1.0})})
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))

def result(strategy, orders):
    list(strategy.configure_train(1, record(["query", "key"]), ConfigRecord(), Grid()))
    arrays, _ = strategy.aggregate_train(1, [reply(order) for order in orders])
    return {name: round(float(arrays[name].numpy()[0]), 1) for name in ("query", "key")}

one, other = ["query", "key"], ["key", "query"]
print("flwr", version("flwr"), "- every site sends query = 1 and key = 100")
for strategy in (FedAvg(), FedMedian()):
    seen = result(strategy, [one, other, one])
    print(type(strategy).__name__, "one site in another order:", seen)
    assert seen == {"query": 1.0, "key": 100.0}
for strategy in (QFedAvg(client_learning_rate=1.0, q=0.0), Bulyan()):
    seen = result(strategy, [one, other, one])
    print(type(strategy).__name__, "one site in another order:", seen)
    assert seen == {"query": 34.0, "key": 67.0}, "no longer joined by position"
seen = result(FedAvgM(server_momentum=0.9, server_learning_rate=0.9), [other, other, other])
print("FedAvgM all sites in another order:", seen)
assert seen["query"] != 1.0 and seen["key"] != 100.0, "FedAvgM no longer goes by position"
PY
