#!/usr/bin/env bash
# Flower's adaptive clipping moves its bound the wrong way, so the bound runs away.
#
# Andrew et al. (arXiv 1905.03871, algorithm 1) count the clients whose update is WITHIN the bound C and set
# C <- C * exp(-eta * (within - gamma)). DifferentialPrivacyServerSideAdaptiveClipping (and the client-side one) count
# the clients that were CLIPPED and keep the same minus sign. If every update is too long the bound therefore shrinks,
# and more is cut; if none is, it grows, and with it the noise. The docstring calls `target_clipped_quantile` "the
# desired quantile of updates which should be clipped"; the rule drives away from it, whatever it is.
#
# No misuse: default values, updates of one constant length, no noise. No thread about it was found.
# For a federation: with a bound that starts too small the model nearly stops learning; with one that starts
# too large the noise grows by 10 % a round. Nothing is said.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q flwr==1.41.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import logging, math, numpy as np
from importlib.metadata import version
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping as Adaptive, FedAvg
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # what a running ServerApp has
logging.getLogger("flwr").setLevel(logging.ERROR)

class Grid:
    def get_node_ids(self): return [1, 2, 3, 4]

def reply(values):
    content = RecordDict({"arrays": ArrayRecord([values]), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=Message(RecordDict(), dst_node_id=2, message_type="train"))

def bounds(length, rounds=30):
    strategy = Adaptive(FedAvg(), noise_multiplier=0.0, num_sampled_clients=4, initial_clipping_norm=1.0)
    seen = []
    for number in range(1, rounds + 1):
        list(strategy.configure_train(number, ArrayRecord([np.zeros(4)]), ConfigRecord(), Grid()))
        strategy.aggregate_train(number, [reply(np.eye(4)[k] * length) for k in range(4)])
        seen.append(strategy.clipping_norm)
    return seen

print("flwr", version("flwr"))
print("bound by the paper's rule, all updates 10 long: grows from 1 by exp(0.2 * 0.5) a round until it reaches 10")
long, short = bounds(10.0), bounds(0.001)
print("updates of length 10,    bound in rounds 1, 10, 30:", [round(long[i], 4) for i in (0, 9, 29)])
print("updates of length 0.001, bound in rounds 1, 10, 30:", [round(short[i], 4) for i in (0, 9, 29)])
assert math.isclose(long[-1], math.exp(-0.1 * 30)), "the bound no longer shrinks below updates that are all too long"
assert math.isclose(short[-1], math.exp(0.1 * 30)), "the bound no longer grows above updates that are all short"
PY
