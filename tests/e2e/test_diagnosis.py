"""A diagnosis learned after prognosis and segmentation: from federated counts, and with no bit changed before it."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from common.config.load import compose_run
from common.config.rules import check_run
from common.config.step import Selection
from common.config.view import View
from common.protocol.wire import unpack_order
from server.run.finish import write_outputs
from server.run.probe import verify_run
from tests.helpers.small import VIEW, asked, federate, tampering

CENTERS = ["CHUM", "CHUP", "MDA"]


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory, small_centers):
    run = compose_run(["curriculum=diagnosis", "backbone=tiny", "name=small"])
    check_run(run)
    run.data.split.validation = 0.34
    for step in run.steps.values():
        step.rounds, step.view = 1, View(**asdict(VIEW))
        step.training.batch, step.training.epochs = 2, 1
        step.centers = step.evaluate_at = list(CENTERS)
    run.steps["relapse"].task.loss, run.steps["relapse"].selection = "cox", Selection("nll")
    grid = tampering()
    return run, federate(run, tmp_path_factory.mktemp("diagnosed"), small_centers, grid=grid), grid.seen


def test_the_diagnosis_changes_no_bit_of_what_was_learned_before(diagnosed):
    run, leader, _ = diagnosed
    verification = verify_run(leader.folder, run.backbone, seed=run.seed)
    assert verification.changed_bits == {"relapse": 0, "tumour_ct": 0, "hpv": 0}


def test_its_row_joins_the_others_which_stay_as_they_were(diagnosed):
    _, leader, _ = diagnosed
    _, before, after = leader.ledger.events("step_finished")
    bare = [[{k: v for k, v in r.items() if k != "step"} for r in e["scores"]] for e in (before, after)]
    assert [row for row in bare[1] if row["task"] != "hpv"] == bare[0]
    rows = {(r["metric"], r["center"]): r for r in bare[1] if r["task"] == "hpv"}
    assert after["primary"]["hpv"] == "auroc" and rows["auroc", "pooled"]["n"] == 6
    assert {"auprc", "balanced_accuracy", "ece", "nll"} <= {metric for metric, _ in rows}


def test_every_center_trains_with_the_classes_of_all(diagnosed):
    _, leader, seen = diagnosed
    [started] = leader.ledger.events("step_started", step="hpv")
    counts = np.array(started["known"]["class_counts"])
    assert counts.sum() == sum(started["counts"][center]["train"] for center in CENTERS)
    orders = [unpack_order(sent.content) for sent, _ in seen if asked(sent)[0] == "train"]
    told = [order.known["class_counts"].tolist() for order in orders if order.step.name == "hpv"]
    assert told == [counts.tolist()] * len(CENTERS)


def test_temperature_and_baseline_come_from_validation_sums_and_reach_the_tests(diagnosed):
    _, leader, seen = diagnosed
    relapse, _, hpv = leader.ledger.events("step_finished")
    assert 0.1 <= hpv["known"]["temperature"] <= 10 and hpv["threshold"] is None
    assert np.diff(relapse["known"]["baseline"]).min() >= 0 and relapse["threshold"] is not None
    orders = [unpack_order(sent.content) for sent, _ in seen if asked(sent)[0] == "evaluate"]
    final = [o for o in orders if o.step.name == "hpv" and "temperature" in o.known]
    assert {o.subset for o in final} == {"test"} and len(final) == len(CENTERS)


def test_the_report_holds_curves_calibration_and_a_forest_for_each_task(diagnosed):
    _, leader, _ = diagnosed
    write_outputs(leader.folder.path, overlays=[])
    page = leader.folder.report.read_text()
    assert page.count('<svg class="chart reliability"') == 2 and page.count('<svg class="chart forest"') == 3
    assert "divided by a temperature of" in page and "Log-rank test" in page
