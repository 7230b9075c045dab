"""Results as tidy tables: exactly the rows of results.json, and the ledger's rounds beside their bytes."""

from __future__ import annotations

import json

import pytest

from common.errors import DataError
from common.store.ledger import Ledger
from simulations.frames import ROUNDS, SCORES, results_frames

SCORE = {"step": "a", "task": "a", "metric": "dice", "center": "CHUM", "value": 0.5, "n": 3}
RUN = {"name": "r", "kind": "federated", "curriculum": "smoke", "seed": 7, "arm": "federated"}
SENT = {"step": "a", "phase": "train", "round": 1, "center": "CHUM", "bytes_up": 3, "bytes_down": 5}


def write(folder, content):
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))


def test_a_runs_rows_and_rounds(tmp_path):
    hidden = {**SCORE, "center": "MDA", "value": None, "n": None}
    write(tmp_path / "r", {"run": RUN, "scores": [SCORE, hidden], "communication": [SENT, {**SENT, "center": "MDA"}]})
    event = {
        "step": "a", "round": 1, "seconds": {"train": 2.0},
        "validation": {"metric": "dice", "pooled": 0.4, "loss": 1.5},
        "train": {"CHUM": {"loss": 1.0, "cases": 1}, "MDA": {"loss": 2.0, "cases": 3}},
    }  # fmt: skip
    Ledger(tmp_path / "r" / "ledger.jsonl").append("round_finished", event)
    frames = results_frames(tmp_path / "r" / "results.json")
    assert tuple(frames.scores.columns) == SCORES and tuple(frames.rounds.columns) == ROUNDS
    assert frames.scores["value"].isna().tolist() == [False, True] and set(frames.scores["seed"]) == {7}
    [row] = frames.rounds.to_dict("records")
    assert (row["bytes_up"], row["bytes_down"], row["centers"], row["seconds"]) == (6, 10, 2, 2.0)
    assert (row["validation"], row["validation_loss"], row["train_loss"]) == (0.4, 1.5, 1.75)


def test_several_runs_stand_one_below_the_other_and_arms_keep_their_names(tmp_path):
    for name in ("one", "two"):
        arms = [{**SCORE, "arm": "centralized", "seed": 3, "fold": 1}]
        write(tmp_path / name, {"run": {**RUN, "name": name}, "scores": [SCORE, *arms], "communication": [SENT]})
    frames = results_frames([tmp_path / "one", tmp_path / "two"])
    assert frames.scores["run"].tolist() == ["one", "one", "two", "two"]
    assert frames.scores["arm"].tolist() == ["federated", "centralized"] * 2
    assert frames.scores["seed"].tolist() == [7, 3] * 2
    assert len(results_frames(tmp_path).rounds) == 2 and frames.rounds["validation"].isna().all()


def test_a_folder_without_results_is_said(tmp_path):
    with pytest.raises(DataError, match=r"No results\.json"):
        results_frames(tmp_path)
