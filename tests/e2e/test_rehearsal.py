"""A center of an earlier step rehearses: it goes on taking part in the lineage with its memory alone."""

from __future__ import annotations

import pytest

from common.config.methods.continual import LwfMethod, RehearsalMethod, SequentialMethod
from common.config.rules import broken_rules
from tests.helpers.small import adapters, federate, small_run


def a_run(*methods):
    """One task, first at CHUM, then at CHUP with CHUM rehearsing."""
    run = small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct", "tumour_ctpet"], rounds=2)
    first, second = run.steps.values()
    second.task, second.modalities, second.adapter, second.view = first.task, ["CT"], first.adapter, first.view
    second.modes, second.train_parts, second.starts_from = [], ["*"], None
    second.training = first.training
    first.centers, first.writes, second.writes, second.methods = ["CHUM"], "tumor", "tumor", list(methods)
    return run


@pytest.fixture(scope="module")
def leader(small_centers, tmp_path_factory):
    run = a_run(RehearsalMethod(at=["CHUM"], cases=1), LwfMethod())
    assert broken_rules(run) == []
    return federate(run, tmp_path_factory.mktemp("rehearsal") / "run", small_centers)


def test_the_center_that_rehearses_trains_its_memory_and_the_other_all_of_its_own(leader):
    rounds = leader.ledger.events("round_finished", step="tumour_ctpet")
    counts = leader.ledger.events("step_started", step="tumour_ctpet")[0]["counts"]
    assert [event["failed"] for event in rounds] == [{}, {}]
    for event in rounds:
        assert event["train"]["CHUM"]["cases"] == 1 < counts["CHUM"]["train"]
        assert event["train"]["CHUP"]["cases"] == counts["CHUP"]["train"]


def test_a_shared_lineage_of_one_task_reads_both_steps_with_the_same_adapter(leader):
    second = leader.ledger.events("step_finished")[1]
    rows = {
        task: [(r["metric"], r["center"], r["value"]) for r in second["scores"] if r["task"] == task]
        for task in ("tumour_ct", "tumour_ctpet")
    }
    assert rows["tumour_ct"] == rows["tumour_ctpet"] and rows["tumour_ct"]


def test_where_nobody_rehearses_the_adapter_is_that_of_plain_training(small_centers, tmp_path):
    keys = {}
    for name, method in {"rehearsal": RehearsalMethod(at=[]), "sequential": SequentialMethod()}.items():
        leader = federate(a_run(method), tmp_path / name, small_centers)
        keys[name] = leader.bank.entry(adapters(leader)["tumour_ctpet"]).state_hash
    assert keys["rehearsal"] == keys["sequential"]


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ([RehearsalMethod(at=["MDA"])], "method rehearsal is at MDA, not among the step's centers ['CHUM', 'CHUP']"),
        ([RehearsalMethod(at=["CHUM", "CHUP"])], "so nobody would train anything new"),
        ([RehearsalMethod(at=["CHUM"], cases=0)], "method rehearsal has cases 0; it must be 1 or more."),
        ([SequentialMethod(), RehearsalMethod(at=["CHUM"])], "nothing keeps what was known, rehearsal keeps it"),
    ],
)
def test_what_cannot_be_rehearsed_is_said_in_a_sentence(methods, said):
    problems = broken_rules(a_run(*methods))
    assert any(said in problem for problem in problems), problems
