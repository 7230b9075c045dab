"""The bench times equal work or nothing, and says how far its figures scatter."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from rich.console import Console

from client.center.center import Center
from common.config.step import Step
from common.errors import RoundFailed
from common.store.ledger import Ledger
from simulations.benchmarks import rounds as bench_module
from simulations.benchmarks.rounds import (
    IDLE,
    Setting,
    Spread,
    bench,
    bench_tables,
    decoder_shapes,
    lora_shapes,
)
from simulations.comparison.baselines import Trained, baseline_order
from tests.helpers.small import small_run, write_centers


def test_the_ratio_is_least_over_least_and_its_range_that_of_neighbors():
    spread = Spread([2.0, 3.0, 2.2], [1.0, 2.0, 2.0])
    assert spread.ratio == 2.0
    assert spread.range == (1.1, 2.0)
    assert spread.as_json()["ratio_range"] == [1.1, 2.0]


def test_adapters_have_the_sizes_of_the_literature():
    assert sum(map(prod, lora_shapes().values())) == 294_912
    assert sum(map(prod, decoder_shapes().values())) == 4_443_123


def test_idle_centers_hand_back_what_they_got_and_nothing_of_a_patient(tmp_path):
    run = small_run()
    order = baseline_order(run, run.steps["tumour_ct"], base="none", state={"decoder/x": torch.ones(2)})
    center = Center.open(write_centers(tmp_path, tmp_path, ["CHUM"])["CHUM"])
    trained, scored = IDLE.train(center, order), IDLE.evaluate(center, order)
    assert trained.state["decoder/x"] is order.state["decoder/x"] and scored.state == {}
    assert IDLE.declared(center, order) == (order.state, {})
    assert trained.center == "CHUM" and trained.is_usable
    assert all(np.count_nonzero(value) == 0 for name, value in trained.sums.items() if name != "fit.cases")


def test_idle_centers_hand_back_the_factors_that_a_round_trains_and_no_others(tmp_path):
    run = small_run(steps=["relapse"])
    state = {name: torch.ones(shape) for name, shape in lora_shapes().items()}
    order = baseline_order(run, run.steps["relapse"], base="none", state=state)
    center = Center.open(write_centers(tmp_path, tmp_path, ["CHUM"])["CHUM"])
    sent = [set(IDLE.train(center, replace(order, round=number)).state) for number in (1, 2)]
    assert sent[0] | sent[1] == set(state) and not sent[0] & sent[1] and len(sent[0]) == len(sent[1]) == 12


def test_unequal_numbers_of_steps_are_not_compared(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("round_finished", {"step": "s", "round": 1, "train": {"A": {"steps": 3}, "B": {"steps": 2}}})
    equal, unequal = (Trained({}, 1, [None], batches=n, cases=n) for n in (5, 4))
    assert bench_module._check_equal_work(ledger, equal, Step(name="s")) == 5
    with pytest.raises(RoundFailed, match="5 federated and 4 centralized"):
        bench_module._check_equal_work(ledger, unequal, Step(name="s"))


@pytest.mark.slow
def test_a_small_bench_measures_everything_and_leaves_only_its_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setting = Setting(backbone="tiny", scale=0.02, steps=("tumour_ct",), repeats=2, overhead_rounds=2, cached_cases=3)
    told: list[str] = []
    found = bench(tmp_path / "bench.json", setting=setting, say=told.append)

    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(found))
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    small, large = (found["round_overhead"][name] for name in ("lora", "decoder"))
    assert small["parameters"] == 294_912 and large["parameters"] == 4_443_123
    assert 0 < small["process_ms"]["median"] < large["process_ms"]["median"]
    ratio, cache = found["federated_to_centralized"]["tumour_ct"], found["cached_features"]
    assert ratio["steps"] > 0 and len(ratio["a_seconds"]) == 2 and ratio["ratio"] > 0.5
    assert cache["cases"] == 3 and cache["ratio"] > 0.5
    console = Console(width=120, record=True)
    for table in bench_tables(found):
        console.print(table)
    assert "4,443,123" in console.export_text()
    assert len(told) == 5
