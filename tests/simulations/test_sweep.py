"""A command line with comma lists is one run a combination, skipped once finished, with one table at the end."""

from __future__ import annotations

import csv
import json

import pytest

from common.errors import ConfigError, RoundFailed
from simulations.frames import results_frames
from simulations.sweep import points_of, sweep, sweep_table, varied

SWEPT = ["curriculum=smoke", "seed=1,2", "steps.tumour_ct.lr=1e-3,3e-3"]


def result(name: str, seed: int) -> dict:
    task = {"metric": "dsc_agg", "average": 0.1 * seed, "worst": 0.0, "worst_center": "MDA"}
    rows = [{"arm": "federated", "step": "tumour_ct", "task": "tumour_ct", "mode": "CT", "metric": "dsc_agg",
             "center": "pooled", "value": 0.1 * seed, "n": 4}]  # fmt: skip
    sent = [
        {"step": "tumour_ct", "phase": "train", "round": r, "center": c, "bytes_up": 10, "bytes_down": 20}
        for r in (0, 1) for c in ("CHUM", "MDA")
    ]  # fmt: skip
    run = {"name": name, "kind": "federated", "curriculum": "smoke", "seed": seed, "arm": "federated"}
    return {"run": run, "scores": rows, "communication": sent, "summary": {"federated": {"tasks": {"tumour_ct": task}}}}


class Runner:
    """Writes what a run would leave."""

    def __init__(self, place):
        self.place, self.ran = place, []

    def __call__(self, overrides):
        given = dict(o.split("=", 1) for o in overrides)
        self.ran.append(given["name"])
        if given["seed"] == "3":
            raise RoundFailed("Too few centers.")
        folder = self.place / given["name"]
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(result(given["name"], int(given["seed"]))))
        return folder


def test_lists_are_swept_and_brackets_are_not():
    assert varied(["seed=1,2", "runtime.workers=1", "adapter=[decoder,pet],decoder"]) == {
        "seed": ["1", "2"], "adapter": ["[decoder,pet]", "decoder"],
    }  # fmt: skip
    assert (
        varied(["compare.seeds=[1,2]", "steps.relapse.centers=[CHUM, MDA]", "+faults.a={kind: nan, rounds: [1]}"]) == {}
    )
    assert varied(["seed=range(1,4)", "federation=choice(fedavg,fedprox)"]) == {
        "seed": ["1", "2", "3"], "federation": ["fedavg", "fedprox"],
    }  # fmt: skip


def test_each_combination_has_a_name_and_a_command_line_of_its_own():
    points = points_of(SWEPT, name="smoke")
    assert [p.name for p in points] == [f"smoke-seed_{s}-lr_{r}" for s in (1, 2) for r in ("0.001", "0.003")]
    assert points[1].overrides == [
        "curriculum=smoke", "seed=1", "steps.tumour_ct.lr=0.003", "name=smoke-seed_1-lr_0.003",
    ]  # fmt: skip
    both = points_of(["steps.a.lr=1,2", "steps.b.lr=1,2", "name=mine"], name="mine")
    assert both[0].name == "mine-a.lr_1-b.lr_1"


def test_finished_runs_are_skipped_and_a_changed_configuration_is_not(tmp_path):
    runner, said = Runner(tmp_path / "runs"), []
    place = tmp_path / "sweep"
    first = sweep(SWEPT[:2], runner, name="smoke", folder=place, say=said.append)
    assert runner.ran == ["smoke-seed_1", "smoke-seed_2"] and [p.scores[0]["value"] for p in first] == [0.1, 0.2]
    sweep([SWEPT[0], "seed=1,2,4"], runner, name="smoke", folder=place, say=said.append)
    assert runner.ran[2:] == ["smoke-seed_4"] and said[-3] == "1 of 3: smoke-seed_1 has finished before"
    runner.place = tmp_path / "again"
    sweep([*SWEPT[:2], "steps.tumour_ct.rounds=1"], runner, name="smoke", folder=place, say=said.append)
    assert runner.ran[3:] == ["smoke-seed_1", "smoke-seed_2"]


def test_one_table_says_what_each_run_reached_and_what_failed(tmp_path):
    points = sweep([SWEPT[0], "seed=2,3"], Runner(tmp_path / "runs"), name="smoke", folder=tmp_path, say=print)
    assert points[1].problem == "Too few centers." and sweep_table(points).row_count == 2
    [row] = csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines())
    assert (row["run"], row["seed"], row["task"], float(row["value"])) == ("smoke-seed_2", "2", "tumour_ct", 0.2)
    assert [run["folder"] != "" for run in json.loads((tmp_path / "sweep.json").read_text())["runs"]] == [True, False]


def test_every_combination_is_checked_before_the_first_runs(tmp_path):
    runner = Runner(tmp_path)
    with pytest.raises(ConfigError, match=r"smoke-rounds_-1: Step 'tumour_ct'"):
        sweep(["curriculum=smoke", "steps.tumour_ct.rounds=1,-1"], runner, name="smoke", folder=tmp_path, say=print)
    assert runner.ran == []
    with pytest.raises(ConfigError, match="give each value once"):
        points_of(["seed=1,1"], name="smoke")


def test_a_sweeps_frames_have_its_options_as_columns(tmp_path):
    sweep(SWEPT, Runner(tmp_path / "runs"), name="smoke", folder=tmp_path / "sweep", say=print)
    frames = results_frames(tmp_path / "sweep")
    assert len(frames.scores) == 4 and list(frames.scores["steps.tumour_ct.lr"]) == [0.001, 0.003] * 2
    assert list(frames.scores["seed"]) == [1, 1, 2, 2]
    assert list(frames.scores.groupby("seed")["value"].mean()) == pytest.approx([0.1, 0.2])
    assert list(frames.rounds["bytes_up"]) == [20] * 4 and list(frames.rounds["round"]) == [1] * 4
