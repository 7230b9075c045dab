#!/usr/bin/env bash
# Flower's FedXgbBagging throws away the trees of all classes but one, and files what is left under class 0.
#
# With three classes (multi:softprob) XGBoost grows three trees a round and says in `tree_info` which class each
# belongs to. The aggregation takes `num_parallel_tree` trees from each reply, which is 1 whatever the number of
# classes, and writes 0 for the class of each. Ten replies of three trees leave 3 + 9 = 12 trees instead of 30: those
# of the very first reply are whole; of every later one the class-0 tree alone is kept. The model loads and predicts;
# its other classes stay where the first site's first round left them. (NVFlare had the first half of this:
# NVIDIA/NVFlare 4484.)
#
# No misuse: the strategy names no restriction to two classes, and nothing is raised.
# For a federation: staging or subtype models (three classes and more) do not learn after the first site's first
# round.
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
PARAMETERS = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "nthread": 1, "base_score": 0.5}

class Grid:
    def get_node_ids(self): return [1, 2]

def site(seed):
    draw = np.random.default_rng(seed)
    table = draw.normal(size=(200, 4))
    return xgb.DMatrix(table, (table[:, 0] > -0.5).astype(int) + (table[:, 0] > 0.5))

def reply(data, model):
    if not model.size:
        booster = xgb.train(PARAMETERS, data, 1)
    else:  # one more round on the model that came, and that round alone is sent
        booster = xgb.Booster(PARAMETERS)
        booster.load_model(bytearray(model.tobytes()))
        rounds = booster.num_boosted_rounds()
        booster.update(data, rounds)
        booster = booster[rounds : rounds + 1]
    arrays = ArrayRecord([np.frombuffer(bytes(booster.save_raw("json")), dtype=np.uint8)])
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 200})})
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))

print("flwr", version("flwr"), "xgboost", xgb.__version__, "- 2 sites, 5 rounds, 3 classes: 30 trees are grown")
sites, strategy, model = [site(1), site(2)], FedXgbBagging(), np.array([], dtype=np.uint8)
for number in range(1, 6):
    list(strategy.configure_train(number, ArrayRecord([model]), ConfigRecord(), Grid()))
    arrays, _ = strategy.aggregate_train(number, [reply(data, model) for data in sites])
    model = arrays["0"].numpy()
classes = json.loads(model.tobytes())["learner"]["gradient_booster"]["model"]["tree_info"]
print("trees in the joint model:", len(classes), " class of each:", classes)
assert classes == [0, 1, 2] + [0] * 9, "the joint model now holds other trees"
PY
