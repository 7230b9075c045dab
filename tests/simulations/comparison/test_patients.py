"""Patients' scores in a simulation are those that the centers' sums gave, whatever a center keeps for itself."""

from __future__ import annotations

import numpy as np
import pytest

from server.evaluation.matrix import POOLED
from simulations.comparison.paired import METRICS, Patient, value_of_patients
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
    value = {name: value_of_patients(run.steps["tumour_ct"], own, name) for name in METRICS["segmentation"]}
    assert event["kept_round"] > 0
    for name in ("dsc_agg", "dice", "surface_dice", "lesion_f1"):
        assert value[name] == pytest.approx(said[name, POOLED], abs=1e-12)
    low, high = (
        [said[f"hd95_median_{end}_{name}", POOLED] for name in run.steps["tumour_ct"].task.structures]
        for end in ("from", "to")
    )
    assert np.mean(low) <= value["hd95"] and (None in high or value["hd95"] <= np.mean(high))
    predicted = [np.array([p.records[0]["predicted"] for p in side]) for side in (own, common)]
    assert np.array_equal(*predicted) != bool(kept)


def patients(run, leader, event, files, since):
    step, state = run.steps[event["step"]], leader.bank.get(event["key"])
    found = observe(run, step, state, open_centers(files, CENTERS), base=leader.base, since=since, run_id=leader.run_id)
    return [Patient(o.center, o.patient, 0, ({n: np.asarray(v) for n, v in o.observation.items()},)) for o in found]
