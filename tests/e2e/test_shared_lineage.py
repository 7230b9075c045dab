"""Two steps write one lineage: the second goes on with the first one's adapter; the first is scored anew with it."""

from __future__ import annotations

import pytest
import torch

from common.config.methods.continual import SequentialMethod
from common.config.rules import broken_rules
from common.store.lineage import parts_in_use, state_in_use
from tests.helpers.small import federate, small_run

CENTERS = ["CHUM", "CHUP"]


def a_run():
    """CT alone at one center, then CT and PET at the other, in one lineage."""
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    for name, center in zip(run.steps, CENTERS, strict=True):
        run.steps[name].centers, run.steps[name].evaluate_at, run.steps[name].writes = [center], CENTERS, "tumor"
        run.steps[name].starts_from = None
    run.steps["tumour_ctpet"].methods = [SequentialMethod()]
    return run


@pytest.fixture(scope="module")
def leader(small_centers, tmp_path_factory):
    run = a_run()
    assert broken_rules(run) == []
    return federate(run, tmp_path_factory.mktemp("shared") / "run", small_centers)


def test_the_first_task_is_read_with_what_the_second_left(leader):
    first, second = leader.ledger.events("step_finished")
    assert leader.bank.heads() == {"tumor": second["key"]} and leader.bank.entry(second["key"]).parents == [
        first["key"]
    ]
    keys = parts_in_use(leader.bank, head=second["key"], own=first["key"])
    moved = {part for part, key in keys.items() if key == second["key"]}
    assert "decoder" in moved
    before, now = leader.bank.get(first["key"]), state_in_use(leader.bank, head=second["key"], own=first["key"])
    assert before.keys() == now.keys() and any(not torch.equal(before[n], now[n]) for n in now)


def test_the_first_task_has_a_score_after_each_step_and_they_differ(leader):
    rows = [row for event in leader.ledger.events("step_finished") for row in event["scores"]]
    found = {
        row["step"]: row["value"]
        for row in rows
        if (row["task"], row["metric"], row["center"], row["mode"]) == ("tumour_ct", "dsc_agg", "pooled", "CT")
    }
    assert found.keys() == {"tumour_ct", "tumour_ctpet"} and None not in found.values()
    losses = [row["value"] for row in rows if row["task"] == "tumour_ct" and row["center"] == "pooled"]
    assert len(set(losses)) > 1


def test_without_a_method_a_lineage_has_one_writer():
    run = a_run()
    run.steps["tumour_ctpet"].methods = []
    [said] = broken_rules(run)
    assert said.startswith(
        "Step 'tumour_ctpet' writes lineage 'tumor', which 'tumour_ct' writes before it, and nothing says how that "
        "goes on: set steps.tumour_ctpet.methods to one or more of "
    )
    assert said.endswith("(steps.tumour_ctpet.writes=null with steps.tumour_ctpet.starts_from=tumour_ct).")


def test_a_lineage_goes_on_from_its_own_head():
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    run.steps["tumour_ct"].writes = run.steps["tumour_ctpet"].writes = "tumor"
    run.steps["tumour_ctpet"].methods = [SequentialMethod()]
    run.steps["tumour_ctpet"].starts_from = "elsewhere"
    assert any("starts from 'elsewhere', which does not write it" in said for said in broken_rules(run))
