"""The bench of aggregation measures every rule on updates of the size that it says."""

from __future__ import annotations

import io
import json

import torch
from rich.console import Console

from common.adapters.lowrank import LORA_RULES
from server.aggregation import RULES
from simulations.benchmarks.aggregation import (
    BLOCKS,
    AggregationSetting,
    _stream,
    aggregation_tables,
    bench_aggregation,
    cases_of,
    start_of,
)


def test_the_full_state_weighs_five_point_four_megabytes():
    assert round(sum(t.numel() for t in start_of("fedit", BLOCKS).values()) * 4 / 1e6, 1) == 5.4


def test_every_rule_and_every_lora_rule_is_timed_and_written(tmp_path):
    found = bench_aggregation(
        tmp_path / "b.json", setting=AggregationSetting(repeats=1, streamed=4, blocks=0), say=lambda line: None
    )
    assert {name.partition(",")[0] for name in found["rules"]} == set(RULES)
    assert {f"mean, {rule}" for rule in LORA_RULES} <= set(found["rules"])
    for row in found["rules"].values():
        assert 0 <= row["ms"]["least"] <= row["ms"]["most"] and row["sent_mb"] > 0
        assert row["beyond_copies_ms"] == row["ms"]["least"] - row["copies_ms"]
    assert json.loads((tmp_path / "b.json").read_text())["rules"].keys() == found["rules"].keys()
    console = Console(record=True, width=120, file=io.StringIO())
    for table in aggregation_tables(found):
        console.print(table)
    assert "geometric_median, rolora" in console.export_text()


def test_cases_are_whole_rounds_that_change_the_state():
    for case in cases_of(AggregationSetting(blocks=1)).values():
        state = case.run()
        assert any(not torch.equal(state[name], tensor) for name, tensor in case.start.items())


def test_streamed_updates_differ_though_they_live_in_one_place():
    setting = cases_of(AggregationSetting(blocks=0))["mean, rolora"]
    values = [float(u.state["fusion/0.bias"][0]) for u in _stream(setting.start, setting.setting, 3)]
    assert len(set(values)) == 3
