#!/usr/bin/env bash
# A federated XGBoost model of Flower has no fixed meaning: its predictions depend on which site answers first.
#
# Since 2.0 XGBoost estimates the intercept (`base_score`) from the data unless it is given, and a tree holds what is
# left after that intercept. Flower's FedXgbBagging appends the trees of all sites to the first reply of the first
# round and keeps that reply's `base_score`. The trees of the other sites were grown on other intercepts: their
# corrections are added to the wrong number. Two sites whose mean target is 0 and 10 give a model that predicts about
# 0, or about 10, by the order of the replies; with base_score fixed to 5 in advance it is 4.9 in both orders (the
# pooled mean is 5).
#
# No misuse: parameters as in Flower's own XGBoost examples (an objective, depth, eta), default intercept, valid
# trees.
# For a federation of hospitals with unlike case mix: pass one `base_score` to all sites, or the model is a lottery.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q flwr==1.41.0 numpy==2.4.6 xgboost-cpu==3.2.0
"$work/venv/bin/python" - <<'PY'
import json, logging, numpy as np, xgboost as xgb
from importlib.metadata import version
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedXgbBagging
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what a running ServerApp has
logging.getLogger("flwr").setLevel(logging.ERROR)

class Grid:
    def get_node_ids(self): return [1, 2]

def site(mean, seed):
    draw = np.random.default_rng(seed)
    table = draw.normal(size=(200, 3))
    return table, mean + table[:, 0] + 0.1 * draw.normal(size=200)

def reply(table, target, **more):
    tree = xgb.train({"max_depth": 3, "eta": 1.0, "nthread": 1, **more}, xgb.DMatrix(table, target), 1)
    arrays = ArrayRecord([np.frombuffer(bytes(tree.save_raw("json")), dtype=np.uint8)])
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": len(target)})})
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))

def mean_prediction(sites, **more):
    strategy = FedXgbBagging()
    list(strategy.configure_train(1, ArrayRecord([np.array([], dtype=np.uint8)]), ConfigRecord(), Grid()))
    arrays, _ = strategy.aggregate_train(1, [reply(*one, **more) for one in sites])
    model = xgb.Booster()
    model.load_model(bytearray(arrays["0"].numpy().tobytes()))
    return float(model.predict(xgb.DMatrix(np.concatenate([table for table, _ in sites]))).mean())

print("flwr", version("flwr"), "xgboost", xgb.__version__, "- two sites of 200 cases, mean target 0 and 10")
low, high = site(0.0, 1), site(10.0, 2)
one, other = mean_prediction([low, high]), mean_prediction([high, low])
fixed = [mean_prediction(order, base_score=5.0) for order in ([low, high], [high, low])]
print(f"mean prediction: {one:.2f} if the low site answers first, {other:.2f} if the high one does")
print(f"with base_score=5 at both sites: {fixed[0]:.2f} and {fixed[1]:.2f}")
assert abs(fixed[0] - fixed[1]) < 1e-3 and abs(fixed[0] - 5) < 0.5
assert abs(one) < 1 and abs(other - 10) < 1, "the order of the replies no longer decides"
PY
