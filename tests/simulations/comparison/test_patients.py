"""Patients' scores in a simulation are those that the centers' sums gave, whatever a center keeps for itself."""

from __future__ import annotations

import numpy as np
import pytest

from server.evaluation.matrix import POOLED
from simulations.comparison.paired import Patient, value_of_patients
from simulations.comparison.patients import observe, open_centers
from tests.helpers.small import federate, small_run

CENTERS = ["CHUM", "CHUP", "MDA"]


@pytest.mark.parametrize("kept", [{}, {"personal": 0.1}, {"local": ["decoder/*bias"]}])
def test_test_patients_score_what_the_ledger_says(kept, small_centers, tmp_path):
    run = small_run(centers=CENTERS, steps=["tumour_ct"], rounds=2)
    for name, value in kept.items():
        setattr(run.steps["tumour_ct"].federation, name, value)
    leader = federate(run, tmp_path, small_centers)
    [event] = leader.ledger.events("step_finished")
    own, common = (patients(run, leader, event, small_centers, since) for since in (event["kept_round"], 0))
    said = {(row["metric"], row["center"]): row["value"] for row in event["scores"]}
    value = value_of_patients(run.steps["tumour_ct"], own, "dsc_agg")
    assert event["kept_round"] > 0 and value == pytest.approx(said["dsc_agg", POOLED], abs=1e-12)
    predicted = [np.array([p.records[0]["predicted"] for p in side]) for side in (own, common)]
    assert np.array_equal(*predicted) != bool(kept)


def patients(run, leader, event, files, since):
    step, state = run.steps[event["step"]], leader.bank.get(event["key"])
    found = observe(run, step, state, open_centers(files, CENTERS), base=leader.base, since=since, run_id=leader.run_id)
    return [Patient(o.center, o.patient, 0, ({n: np.asarray(v) for n, v in o.observation.items()},)) for o in found]
