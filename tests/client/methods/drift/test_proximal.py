"""FedProx pulls towards the round's start, and towards nothing else."""

import torch

from client.methods.drift.proximal import Proximal
from common.config.federation import MeanFederation


def test_it_pulls_towards_the_start(bench):
    method = bench.begun(Proximal(2.0), bench.order(MeanFederation(proximal=2.0)))
    assert bench.corrected(method, [3.0, 3.0], [1.0, 1.0]) == [1 + 2 * (3 - 1), 1 + 2 * (3 + 2)]


def test_at_the_start_it_does_nothing_and_nothing_leaves(bench):
    order = bench.order(MeanFederation(proximal=2.0))
    method = bench.begun(Proximal(2.0), order)
    assert bench.corrected(method, bench.x["p/w"].tolist(), [0.5, -0.5]) == [0.5, -0.5]
    assert method.end(bench.job(order), {"p/w": torch.zeros(2)}) == {} and method.own(order) == {}
