"""A run that continues another begins with its adapters and its hospitals' shelves; no other run reads them."""

import logging
import shutil

import pytest

from common.config.federation import Compression
from common.errors import ConfigError
from server import curriculum
from tests.helpers.small import adapters, federate, small_run, write_centers

CENTERS = ["CHUM", "CHUP"]


def a_run(continues=None):
    run = small_run(centers=CENTERS, steps=["tumour_ct"], rounds=2)
    run.continues = continues
    step = run.steps["tumour_ct"]
    step.writes, step.federation.compression = "tumour_ct", Compression("int8")
    return run


@pytest.fixture(scope="module")
def first(tmp_path_factory, small_root):
    path = tmp_path_factory.mktemp("runs")
    files = write_centers(path / "centers", small_root, CENTERS)
    return path, files, federate(a_run(), path / "first", files)


def test_a_run_that_continues_another_reads_its_bank_and_its_shelves(first, caplog):
    path, files, leader = first
    with caplog.at_level(logging.INFO, logger="fedgraft.center"):
        second = federate(a_run("first"), path / "second", files)
    [started] = second.ledger.events("run_started")
    assert started["continues"]["id"] == leader.run_id and started["continues"]["heads"] == adapters(leader)
    kept = leader.ledger.events("step_finished")[0]["kept_round"]
    assert started["continues"]["used"] == {"tumour_ct": dict.fromkeys(CENTERS, kept)}
    [step] = second.ledger.events("step_started")
    assert step["start_key"] == adapters(leader)["tumour_ct"]
    assert second.bank.entry(adapters(second)["tumour_ct"]).parents == [step["start_key"]]
    read = [record.message for record in caplog.records if "continues it" in record.message]
    assert len(read) == 2 and all(leader.run_id[:12] in line and second.run_id[:12] in line for line in read)
    assert not any(row["failed"] for row in second.ledger.events("round_finished"))


def test_a_run_that_continues_none_reads_no_other_runs_shelves(first, caplog):
    path, files, leader = first
    with caplog.at_level(logging.INFO, logger="fedgraft.center"):
        other = federate(a_run(), path / "other", files)
    assert adapters(other) == adapters(leader), "it begins where the first one began"
    assert not any("continues it" in record.message for record in caplog.records)


def test_a_shelf_that_a_continued_run_left_and_that_is_gone_is_a_code(first, small_root, tmp_path):
    path, _, _ = first
    shutil.copytree(path / "first", tmp_path / "first")
    shutil.copytree(path / "centers", tmp_path / "centers")
    files = write_centers(tmp_path / "centers", small_root, CENTERS)
    for shelf in (tmp_path / "centers" / ".vault" / "CHUM" / "steps").glob("*/error"):
        shutil.rmtree(shelf)
    run = a_run("first")
    run.steps["tumour_ct"].federation.quorum = 0.5
    second = federate(run, tmp_path / "second", files)
    assert [row["failed"] for row in second.ledger.events("round_finished")] == [{"CHUM": "vault"}] * 2


def test_only_a_run_that_has_learned_something_can_be_continued(first):
    path, files, _ = first
    with pytest.raises(ConfigError, match="holds no other run"):
        federate(a_run("nothing"), path / "third", files)


def test_killed_between_commit_and_finish_a_shared_lineage_resumes_to_the_same_key(first, monkeypatch):
    """A17: the second step of a lineage starts from the first one's adapter, not from its own."""
    path, files, _ = first
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    run.steps["tumour_ct"].writes = run.steps["tumour_ctpet"].writes = "tumour"
    run.steps["tumour_ctpet"].starts_from = "tumour_ct"
    whole = federate(run, path / "whole", files)

    class Killed(BaseException):
        pass

    real, commits = curriculum.commit, []

    def dying(*arguments):
        entry = real(*arguments)
        commits.append(entry.key)
        if len(commits) == 2:
            raise Killed
        return entry

    with monkeypatch.context() as patch:
        patch.setattr(curriculum, "commit", dying)
        with pytest.raises(Killed):
            federate(run, path / "killed", files)
    resumed = federate(run, path / "killed", files)
    assert adapters(resumed) == adapters(whole) and commits[1] == adapters(whole)["tumour_ctpet"]
    assert [e["start_key"] for e in resumed.ledger.events("step_started", step="tumour_ctpet")] == [commits[0]] * 2
