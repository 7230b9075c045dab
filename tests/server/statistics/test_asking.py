"""Statistics asked as a step: the same numbers as in a hospital's own file, through the same gate, to the same page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import Array

from client.center.center import Center
from client.privacy.release import Minimum
from client.statistics.told import statistics_of
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.data.quantities import QUANTITIES
from common.tasks.unlearned.statistics import told_file, told_shapes, told_sums
from server.report.results import results
from server.run.finish import write_outputs
from server.statistics.asking import TOLD
from server.statistics.compare import read_told
from tests.helpers.small import federate, tampering, write_centers, write_cohort

SIZES = {"CHUM": 13, "MDA": 12, "CHUP": 4}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("told"), SIZES)


def asked(*overrides):
    return compose_run(["curriculum=statistics", "backbone=tiny", *overrides])


def test_a_step_tells_what_the_hospital_s_own_file_says(cohort, tmp_path):
    files = write_centers(tmp_path / "centers", cohort, SIZES, minimum_cell=5)
    run = asked()
    assert not broken_rules(run)
    leader = federate(run, tmp_path / "run", files)
    event = leader.ledger.events(TOLD)[0]
    assert event["refused"] == {"CHUP": "declined.cases"}, "four patients are too few"
    for code in ("CHUM", "MDA"):
        center = Center.open(files[code])
        own = statistics_of(
            code, center.cases, policy=center.config.policy, vault=tmp_path / "other" / code, minimum=Minimum(5, 5)
        )
        assert event["told"][code] == json.loads(json.dumps(own))
        assert json.loads((tmp_path / "run/statistics/statistics" / f"{code}.json").read_text()) == own
    told = read_told([tmp_path / "run/statistics/statistics" / f"{code}.json" for code in ("CHUM", "MDA")])
    assert [one.center for one in told] == ["CHUM", "MDA"]
    page = (tmp_path / "run/statistics/statistics/statistics.html").read_text()
    assert "CHUM" in page and "CT_slice_mm" in page
    assert not leader.ledger.events("step_finished") and results(leader.ledger.events())["scores"] == []

    assert "2 centers told statistics of their patients" in write_outputs(leader.folder.path).read_text()
    again = federate(run, tmp_path / "run", files)
    assert len(again.ledger.events(TOLD)) == 1, "a finished step is not asked again"


def test_the_policies_that_write_no_file_answer_no_step(cohort, tmp_path):
    files = write_centers(tmp_path / "a", cohort, ["CHUM"], require_secure_aggregation=True)
    files |= write_centers(tmp_path / "b", cohort, ["CHUP"], sums=["scores"])
    files |= write_centers(tmp_path / "c", cohort, ["MDA"])
    leader = federate(asked(), tmp_path / "run", files)
    event = leader.ledger.events(TOLD)[0]
    assert event["refused"] == {"CHUM": "declined.secure_aggregation", "CHUP": "declined.sums"}
    assert [*event["told"]] == ["MDA"]


def test_a_second_question_that_differs_by_a_patient_is_over_the_same_patients(cohort, tmp_path):
    """The release record answers for both: the newcomer waits."""
    before = write_cohort(tmp_path / "cohort", {"MDA": 12})
    files = write_centers(tmp_path / "centers", before, ["MDA"], minimum_cell=5)
    first = federate(asked("name=first"), tmp_path / "first", files)
    write_cohort(tmp_path / "cohort", {"MDA": 13})
    second = federate(asked("name=second"), tmp_path / "second", files)
    one, other = (leader.ledger.events(TOLD)[0]["told"]["MDA"] for leader in (first, second))
    assert one == other


def test_numbers_that_no_patients_make_are_stopped(cohort, tmp_path):
    files = write_centers(tmp_path / "centers", cohort, ["CHUM", "MDA"])

    def lie(sent, reply):
        if sent.metadata.message_type == "query.sums" and reply.content["status"]["center"] == "CHUM":
            sums = reply.content["sums"]
            sums["age"] = Array(sums["age"].numpy() + 0.5)
        return reply

    leader = federate(asked(), tmp_path / "run", files, grid=tampering(lie))
    assert leader.ledger.events(TOLD)[0]["refused"] == {"CHUM": "impossible"}


def test_files_and_sums_say_the_same():
    ages = [0, 5, 5, 0, 0, 0, 0]
    file = {
        "format": 1,
        "center": "MDA",
        "minimum": 5,
        "cases": 10,
        "unreadable": 0,
        "merged": True,
        "histograms": {"age": ages},
        "by_scanner": {"ge": {"CT_slice_mm": [5] * 12}},
    }
    sums = told_sums(file)
    assert {*sums} <= {*told_shapes()} and all(np.shape(v) == told_shapes()[n] for n, v in sums.items())
    assert told_file("MDA", sums, cases=10, unreadable=0, merged=True) == file
    with pytest.raises(ValueError, match="no number of patients"):
        told_file("MDA", {"age": np.array([0.5])}, cases=1, unreadable=0, merged=False)


def test_a_step_of_statistics_learns_nothing():
    run = asked("steps.statistics.rounds=2")
    assert any("statistics are told once" in problem for problem in broken_rules(run))
    assert {name for name in told_shapes() if "/" not in name} == {*QUANTITIES, "minimum"}
