"""The bench's ratios: equal work or none, at the smallest size all of them, and a slip past its margin is named."""

import json

import pytest
import torch

from common.errors import FedgraftError, RoundFailed
from simulations.benchmarks.peers import Job, check_same, least_round, plain
from simulations.benchmarks.ratios import COMMITTED, SMALLEST, WORDS, Size, bench_ratios, check, ratio_rows
from simulations.benchmarks.rounds import Setting


def test_the_peers_job_is_the_size_that_it_says():
    start = Job().start()
    assert sum(tensor.numel() for tensor in start.values()) == 1_311_232
    state, marks = plain(Job(clients=3, rounds=60, layers=1))
    assert len(marks) == 61 and all(torch.allclose(t, torch.ones(()), atol=2e-2) for t in state.values())


def test_other_numbers_are_no_times():
    check_same({"a": torch.ones(2)}, {"a": torch.ones(2)})
    with pytest.raises(RoundFailed, match="other numbers in a"):
        check_same({"a": torch.ones(2)}, {"a": torch.tensor([1.0, 2.0])})


def test_the_quickest_round_counts_but_not_the_first():
    assert least_round([0.0, 0.1, 1.1, 1.6]) == pytest.approx(0.5)


def test_every_committed_ratio_is_one_that_is_measured():
    limits = json.loads(COMMITTED.read_text())["ratios"]
    assert set(limits) == set(WORDS) and all(0 < row["margin"] <= 1 < 100 * row["ratio"] for row in limits.values())
    assert Size().repeats >= 5


def test_a_median_past_its_margin_is_named_with_both_numbers(tmp_path):
    limits = tmp_path / "ratios.json"
    limits.write_text(json.dumps({"ratios": {"record": {"ratio": 1.0, "margin": 0.5}}}))
    check({"record": [9.0, 1.4, 1.2]}, limits)
    with pytest.raises(FedgraftError, match=r"audit record.*1\.600, committed 1\.0 within 50 %"):
        check({"record": [1.6, 1.7, 1.2]}, limits)
    assert ratio_rows({"record": [1.0]}, limits).row_count == 1


@pytest.mark.slow
def test_at_the_smallest_size_everything_is_measured_on_equal_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setting = Setting(backbone="tiny", scale=0.02, steps=("relapse",), cached_step="tumour_ct")
    found = bench_ratios(tmp_path / "bench.json", setting=setting, size=SMALLEST, say=lambda line: None)
    assert set(found) == set(WORDS) and all(len(values) == 1 and values[0] > 0 for values in found.values())
    assert json.loads((tmp_path / "bench.json").read_text())["ratios"] == found
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert found["round_lora"][0] < 0.9
