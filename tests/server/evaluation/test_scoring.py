"""Scores are asked for once per state and center, and a new state is a new question."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.protocol.messages import Order
from common.protocol.wire import pack_reply, unpack_reply
from common.tasks import build_task
from server.learning.start import starting_state
from tests.helpers.small import asked, code_of, coordinator, forget, small_run, tampering, write_centers


@pytest.fixture
def scoring(tmp_path, small_centers):
    forget()
    run = small_run(steps=["relapse"])
    grid = tampering()
    leader = coordinator(run, tmp_path, grid(small_centers, workers=0))
    order: Order = leader.order(run.steps["relapse"])
    order.state = starting_state(leader, run.steps["relapse"])
    leader.federation.discover(order)
    grid.seen.clear()
    return leader.scorer, order, build_task(run.steps["relapse"].task), grid.seen


def test_each_center_is_asked_once_per_state(scoring):
    scorer, order, task, seen = scoring
    first = scorer.score(order, task, ["CHUM", "MDA"], label="a")
    assert len(seen) == 2
    again = scorer.score(order, task, ["CHUM", "MDA", "HMR"], label="a", pooled_over=["CHUM", "MDA"])
    assert len(seen) == 3  # HMR only
    assert [r for r in again if r["center"] != "HMR"] == first
    order.state = {name: torch.zeros_like(tensor) for name, tensor in order.state.items()}
    scorer.score(order, task, ["CHUM"], label="b")
    assert len(seen) == 4


def test_a_center_that_joins_does_not_move_the_pooled_row(scoring):
    scorer, order, task, _ = scoring
    rows = scorer.score(order, task, ["CHUM", "HMR", "MDA"], label="a", pooled_over=["CHUM", "MDA"])
    n = {row["center"]: row["n"] for row in rows if row["metric"] == "c_index"}
    assert n["pooled"] == n["CHUM"] + n["MDA"] and n["HMR"] == 1
    assert {row["center"] for row in rows if row.get("joined")} == {"HMR"}


def test_a_pooled_row_names_who_tells_too_little_and_is_none_once_they_had_told(scoring):
    scorer, order, task, _ = scoring
    over = ["CHUM", "MDA"]
    earlier = scorer.score(order, task, over, label="start")

    def answers(order, task, centers):
        found = answers.real(order, task, centers)
        return {center: {"suppressed": np.ones(1)} if center == "MDA" else sums for center, sums in found.items()}

    answers.real, scorer._answers = scorer._answers, answers

    def pooled():
        return next(r for r in scorer.score(order, task, over, label="a") if r["center"] == "pooled")

    row = pooled()
    assert row["missing"] == ["MDA"] and row["value"] is not None and row["n"] == 2
    scorer.ledger.append("start_scores", {"task": "relapse", "scores": earlier})
    row = pooled()
    assert row["missing"] == ["MDA"] and row["value"] is None


def test_an_answer_without_scores_says_that_they_are_suppressed_or_is_stopped(tmp_path, small_centers):
    forget()
    run = small_run(steps=["relapse"])

    def empty(sent, reply):
        if asked(sent)[0] != "evaluate" or code_of(reply) != "MDA":
            return reply
        for name, record in pack_reply(replace(unpack_reply(reply.content), sums={}, counts={})).items():
            reply.content[name] = record
        return reply

    leader = coordinator(run, tmp_path, tampering(empty)(small_centers, workers=0))
    order, task = leader.order(run.steps["relapse"]), build_task(run.steps["relapse"].task)
    order.state = starting_state(leader, run.steps["relapse"])
    leader.federation.discover(order)
    rows = leader.scorer.score(order, task, ["CHUM", "MDA", "GONE"], label="a", pooled_over=["CHUM", "MDA"])
    why = {row["center"]: row.get("why") for row in rows if row["value"] is None}
    assert why == {"MDA": "stopped: incomplete", "GONE": "no answer", "pooled": None}
    [event] = leader.ledger.events("reply_rejected")
    assert (event["center"], event["action"], event["code"]) == ("MDA", "evaluate", "incomplete")


def test_curves_are_asked_for_with_a_threshold_only(scoring):
    scorer, order, task, _ = scoring
    scorer.score(order, task, ["CHUM"], label="a")
    assert scorer.curves(order, task, ["CHUM"]) == {}
    order.threshold = 0.5
    curve = scorer.curves(order, task, ["CHUM", "MDA"])
    assert sum(group[0] for group in curve["at_risk"]) == 5 and curve["threshold"] == 0.5
    assert len(curve["grid_days"]) == len(curve["at_risk"][0])


def test_a_center_that_is_not_connected_has_a_row_without_a_value(scoring):
    scorer, order, task, seen = scoring
    rows = scorer.score(order, task, ["CHUM", "GONE"], label="a")
    assert [(r["value"], r["n"]) for r in rows if r["center"] == "GONE"] == [(None, None)] and len(seen) == 1


def test_levels_of_a_subgroup_are_rows_of_their_own_and_add_up_to_all(scoring):
    scorer, order, task, seen = scoring
    order.step.subgroups, over = ["sex", "scanner"], ["CHUM", "MDA"]
    scores = scorer.score(order, task, over, label="a")
    before = len(seen)
    rows = scorer.by_subgroup(order, task, over, label="a", pooled_over=over)
    assert len(seen) == before == 2, "the scores' own answers hold them"
    pooled = {row["subgroup"]: row for row in rows if row["center"] == "pooled"}
    [whole] = [row for row in scores if row["center"] == "pooled" and row["metric"] == "c_index"]
    assert pooled["sex=male"]["n"] + pooled["sex=female"]["n"] == whole["n"] == 5
    assert {row["metric"] for row in rows} == {"c_index"} and "subgroup" not in scores[0]
    nobody = pooled["scanner=ge"]
    assert (nobody["value"], nobody["n"], nobody["told_by"]) == (None, None, 0)


def test_no_subgroup_of_a_few_leaves_a_center(tmp_path, small_root):
    forget()
    run = small_run(steps=["relapse"])
    run.steps["relapse"].subgroups = ["sex"]
    files = write_centers(tmp_path / "few", small_root, ["MDA"], minimum_cell=2)
    leader = coordinator(run, tmp_path, tampering()(files, workers=0))
    order, task = leader.order(run.steps["relapse"]), build_task(run.steps["relapse"].task)
    order.state = starting_state(leader, run.steps["relapse"])
    leader.federation.discover(order)
    rows = leader.scorer.by_subgroup(order, task, ["MDA"], label="a", pooled_over=["MDA"])
    [whole] = [row for row in leader.scorer.score(order, task, ["MDA"], label="a") if row["center"] == "MDA"][:1]
    assert whole["n"] == 3, "so that one of two levels is a single patient, and the other would tell of it"
    assert [(row["center"], row["value"], row["n"]) for row in rows] == [("pooled", None, None)] * 2
