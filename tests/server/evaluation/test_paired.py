"""Two models scored on the same patients of every center, nothing trained: from a bank to the page."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from client.center.center import Center
from client.privacy.record import read_record
from client.training.observation import observe
from common.config.rules import broken_rules
from common.errors import BankError, ConfigError
from server.report.report import write_report
from server.report.results import SCHEMA, results
from server.run.composed import composed_run
from server.run.folder import RunFolder
from server.run.unfinished import unfinished
from tests.helpers.small import federate, forget, small_run, tampering, write_centers

SIZES = {"CHUM": 19, "CHUP": 7, "MDA": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cohort, its centers' files, and a run that learned two models of one question."""
    from tests.helpers.small import write_cohort

    place = tmp_path_factory.mktemp("paired")
    files = write_centers(place / "centers", write_cohort(place / "cohort", SIZES), SIZES)
    run = small_run(f"out={place}", "name=first", centers=sorted(SIZES), rounds=1)
    federate(run, place / "first", files)
    return place, files


def evaluation(place, *overrides):
    run = composed_run(
        ["curriculum=evaluate", f"model={place}/first:tumour_ctpet", f"compare_with={place}/first:tumour_ct",
         f"out={place}", *overrides]
    )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def compared(trained):
    place, files = trained
    run = evaluation(place, "name=evaluated")
    assert not broken_rules(run)
    return place, files, run, federate(run, place / "evaluated", files)


def test_steps_are_those_of_the_bank_and_nothing_is_trained(compared):
    _place, _, run, leader = compared
    assert [(name, step.rounds, step.compared_with) for name, step in run.steps.items()] == [
        ("tumour_ct", 0, None),
        ("tumour_ctpet", 0, "tumour_ct"),
    ]
    assert not leader.ledger.events("round_finished")
    taken = leader.ledger.events("run_started")[0]["models"]
    for name in run.steps:
        own = leader.ledger.events("step_finished", step=name)[0]["key"]
        assert leader.bank.entry(own).parents == [taken[name]["key"]]
        assert leader.bank.entry(own).state_hash == leader.bank.entry(taken[name]["key"]).state_hash


def test_differences_are_those_of_patients_side_by_side(compared):
    _, files, run, leader = compared
    event = leader.ledger.events("compared")[0]
    scores = {name: [] for name in run.steps}
    for path in files.values():
        center = Center.open(path)
        for name, step in run.steps.items():
            order = leader.order(step)
            order.subset, order.state = "test", leader.bank.get(leader.bank.head(name))
            model, task = center.model(order)
            records = observe(order, model, task, center.case_set(order, "test", model))
            scores[name].append(np.array([_mean_dice(record) for record, _ in records]))
    a, b = (np.concatenate(scores[name]) for name in run.steps)
    pooled = next(row for row in event["rows"] if (row["metric"], row["center"]) == ("dice", "pooled"))
    d = b - a
    assert pooled["n"] == len(d)
    assert pooled["difference"] == pytest.approx(d.mean(), abs=1e-9)
    from scipy.stats import t

    half = t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    assert (pooled["low"], pooled["high"]) == pytest.approx((d.mean() - half, d.mean() + half), abs=1e-9)
    each = [row for row in event["rows"] if row["metric"] == "dice" and row["center"] != "pooled"]
    assert [row["n"] for row in each] == [len(own) for own in scores["tumour_ct"]]


def _mean_dice(record) -> float:
    drawn = record["truth"] > 0
    dice = 2 * record["intersection"] / (record["predicted"] + record["truth"] + (record["truth"] == 0))
    return float(dice[drawn].mean())


def test_the_page_and_the_results_say_who_is_better(compared, tmp_path):
    _, _, _, leader = compared
    found = results(leader.ledger.events())
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    said = found["compared"][0]["verdict"]
    assert said.startswith("'tumour_ctpet' of first is better than 'tumour_ct' of first at ")
    assert "of 3 centers" in said and "pooled dice" in said
    page = write_report(tmp_path / "report.html", leader.ledger.events()).read_text()
    assert "Two models on the same patients" in page and said.replace("'", "&#39;") in page


def test_a_stopped_run_asks_again_and_a_finished_one_does_not(compared):
    place, files, run, leader = compared
    before = len(leader.ledger.events("compared"))
    again = federate(run, place / "evaluated", files)
    assert len(again.ledger.events("compared")) == before


def test_a_run_that_was_stopped_before_its_comparison_makes_it_later(trained, tmp_path, monkeypatch):
    place, files = trained
    run = evaluation(place, "name=stopped")

    def stop(*of):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr("server.curriculum.compare", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            federate(run, tmp_path / "stopped", files)
    folder = RunFolder(tmp_path / "stopped")
    assert unfinished(run, folder) == ["tumour_ctpet"]
    leader = federate(run, tmp_path / "stopped", files)
    assert leader.ledger.events("compared")[0]["asked"] == sorted(SIZES) and unfinished(run, folder) == []


def test_nothing_of_a_patient_leaves_and_few_say_nothing(trained, tmp_path):
    place, _ = trained
    files = write_centers(tmp_path / "centers", place / "cohort", SIZES, minimum_cell=5)
    grid = tampering()
    run = evaluation(place, "name=few")
    leader = federate(run, tmp_path / "few", files, grid=grid)
    asked = [
        reply
        for sent, reply in grid.seen
        if sent.metadata.message_type == "evaluate" and "compared" in sent.content.config_records["config"]
    ]
    told = {str(r.content["status"]["center"]): r for r in asked}
    assert {c: not r.content["sums"] for c, r in told.items()} == {"CHUM": False, "CHUP": True, "MDA": True}
    for reply in told.values():
        assert not reply.content["arrays"]
        for name, array in reply.content["sums"].items():
            assert np.prod(array.shape) <= 3, name  # a number for each metric, none for each patient
    event = leader.ledger.events("compared")[0]
    assert event["refused"] == {"CHUP": "suppressed", "MDA": "suppressed"}
    answered = read_record(Center.open(files["CHUM"]).vault).answered
    assert {one.question.kind for one in answered} == {"scores"} and len({one.patients for one in answered}) == 1
    forget()


def test_a_hospital_that_does_not_allow_it_says_so_by_a_code(trained, tmp_path):
    place, _ = trained
    files = write_centers(tmp_path / "centers", place / "cohort", SIZES)
    files |= write_centers(tmp_path / "strict", place / "cohort", ["MDA"], sums=["scores"])
    leader = federate(evaluation(place, "name=refused"), tmp_path / "refused", files)
    assert leader.ledger.events("compared")[0]["refused"] == {"MDA": "declined.sums"}


def test_a_lie_is_stopped(trained, tmp_path):
    place, files = trained

    def lie(sent, reply):
        if "compared" in sent.content.config_records["config"] and reply.content["status"]["center"] == "CHUM":
            from flwr.app import Array

            sums = reply.content["sums"]
            sums["paired.b"] = Array(sums["paired.b"].numpy() + 100)
        return reply

    leader = federate(evaluation(place, "name=lie"), tmp_path / "lie", files, grid=tampering(lie))
    event = leader.ledger.events("compared")[0]
    assert event["refused"] == {"CHUM": "impossible"}
    assert leader.ledger.events("reply_rejected")[-1]["center"] == "CHUM"


def test_what_cannot_be_compared_is_one_sentence(trained):
    place, _ = trained
    with pytest.raises(BankError, match="the same adapter"):
        composed_run(["curriculum=evaluate", f"model={place}/first:tumour_ct", f"compare_with={place}/first:tumour_ct"])
    with pytest.raises(BankError, match="is no adapter bank"):
        composed_run(["curriculum=evaluate", f"model={place}/nowhere"])
    with pytest.raises(ConfigError, match="add model=runs/NAME"):
        composed_run(["curriculum=evaluate"])
    with pytest.raises(ConfigError, match="nothing is trained"):
        composed_run(["curriculum=smoke", f"model={place}/first"])
    run = evaluation(place)
    run.steps["tumour_ctpet"].task.structures = ["GTVp"]
    assert any("task.structures is" in problem for problem in broken_rules(run))


def test_an_exported_bank_is_scored_as_the_run_s_own(trained, tmp_path):
    from server.run.export import export

    place, _files = trained
    export(RunFolder(place / "first"), tmp_path / "out", key=tmp_path / "signing.key")
    run = composed_run(["curriculum=evaluate", f"model={tmp_path}/out:tumour_ct"])
    own = evaluation(place).steps["tumour_ct"]
    assert [*run.steps] == ["tumour_ct"] and run.steps["tumour_ct"] == own
    assert run.backbone.kind == "tiny"
    (tmp_path / "out" / "README.md").write_text("changed")
    with pytest.raises(BankError, match="changed after it was signed"):
        composed_run(["curriculum=evaluate", f"model={tmp_path}/out"])
