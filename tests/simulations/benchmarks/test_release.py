"""The bench of gate and screen: three kinds of replies, and nothing negative."""

import json

from simulations.benchmarks.release import bench_release


def test_every_kind_of_reply_is_timed(tmp_path):
    found = bench_release(tmp_path / "bench.json", repeats=2)
    assert [cost.reply for cost in found] == [
        "update, 0.3 M parameters", "scores and curves, prognosis", "scores and curves, binary",
    ]  # fmt: skip
    assert all(0 < cost.beyond < 1000 and cost.passes > 0 for cost in found)
    assert [row["beyond"] for row in json.loads((tmp_path / "bench.json").read_text())] == [c.beyond for c in found]
