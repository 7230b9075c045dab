"""The bench of a node measures what it says, at its smallest size."""

import json

import pytest

from simulations.benchmarks.node import NodeSetting, bench_node, node_table


@pytest.mark.slow
def test_a_warm_message_costs_less_and_answers_the_same(tmp_path):
    found = bench_node(
        tmp_path / "node.json", setting=NodeSetting(repeats=1, workers=2, scale=0.02), say=lambda _: None
    )
    assert json.loads((tmp_path / "node.json").read_text()) == found
    message, memory = found["message"], found["memory"]
    assert len({each["digest"] for side in message["all"].values() for each in side}) == 1
    assert 0 < message["warm_ms"] < message["imports_ms"]
    assert set(memory["bytes"]) == {"1", "2"} and 1 < memory["ratio"] < 2
    assert node_table(found).row_count == 3
