"""Scores mean what they say: test patients influence nothing, and sums over centers are the pooled metrics."""

import nibabel as nib
import numpy as np
import pytest

from client.center.center import Center
from common.tasks import build_task, pooled_metrics
from simulations.comparison.patients import observe
from tests.helpers.small import SIZES, adapters, federate, open_all, small_run, write_centers, write_cohort

CENTERS = ["CHUM", "CHUP", "MDA"]


def spoil(path, change):
    image = nib.load(path)
    data = change(np.asanyarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(data, image.affine), path)


@pytest.mark.parametrize("name", ["tumour_ct", "relapse"])
def test_test_patients_influence_neither_training_nor_selection(tmp_path, name):
    run = small_run(centers=["CHUM"], steps=[name])
    outcomes = []
    for folder in ("as_it_is", "changed"):
        root = write_cohort(tmp_path / folder, {"CHUM": 6})
        files = write_centers(tmp_path / f"{folder}_centers", root, ["CHUM"])
        if folder == "changed":
            change_test_patients(root, run, name, files["CHUM"])
        leader = federate(run, tmp_path / f"{folder}_run", files)
        rounds = [(e["state_hash"], e["validation"]) for e in leader.ledger.events("round_finished")]
        [finished] = leader.ledger.events("step_finished")
        chosen = (adapters(leader), rounds, finished["kept_round"], finished["threshold"])
        outcomes.append((chosen, [finished["scores"], finished["curves"]]))
    (chosen, scores), (chosen_otherwise, other_scores) = outcomes
    assert chosen == chosen_otherwise and scores != other_scores


def change_test_patients(root, run, name, file):
    """Other images, labels and times for every test patient of the center."""
    center = Center.open(file)
    order = small_order(run, name)
    tested = [case.patient for case in center.part(order, "test")]
    assert len(tested) == 2
    for patient in tested:
        spoil(root / "imagesTr" / f"{patient}__CT.nii.gz", lambda data: data[::-1] * 3 + 100)
        spoil(root / "labelsTr" / f"{patient}.nii.gz", lambda data: np.roll(data, 5, axis=0))
    table = root / "hecktor2022_endpoint_training.csv"
    lines = table.read_text().splitlines()
    for patient in tested:
        [row] = [i for i, line in enumerate(lines) if line.startswith(patient)]
        _, event, days = lines[row].split(",")
        lines[row] = f"{patient},{event},{2000 - int(days)}"  # the event stays: splits are stratified by it
    table.write_text("\n".join(lines) + "\n")


def small_order(run, name):
    from simulations.comparison.baselines import baseline_order

    return baseline_order(run, run.steps[name], base="", state={})


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run on a cohort with enough test patients per center for pairs."""
    sizes = {code: 2 * SIZES[code] for code in CENTERS}
    root = write_cohort(tmp_path_factory.mktemp("cohort"), sizes, seed=3)
    files = write_centers(tmp_path_factory.mktemp("centers"), root, CENTERS)
    run = small_run(centers=CENTERS, steps=["tumour_ct", "relapse"], rounds=1)
    return run, files, federate(run, tmp_path_factory.mktemp("run"), files)


@pytest.mark.parametrize("name", ["tumour_ct", "relapse"])
def test_sums_over_centers_are_the_pooled_metrics_of_all_patients(scored, name):
    run, files, leader = scored
    [event] = leader.ledger.events("step_finished", step=name)
    found = observe(run, run.steps[name], leader.bank.get(event["key"]), open_all(files), base=leader.base)
    task = build_task(run.steps[name].task)
    expected = pooled_metrics(task, [o.observation for o in found], [o.center for o in found])
    rows = {r["metric"]: r for r in event["scores"] if r["center"] == "pooled" and r["task"] == name}
    assert {metric: rows[metric]["value"] for metric in expected} == expected
    assert all(row["n"] == len(found) == len({o.patient for o in found}) for row in rows.values())
    assert expected[task.primary] is not None


def test_a_pooled_dice_is_a_ratio_of_sums_not_a_mean_of_centers(scored):
    run, files, leader = scored
    [event] = leader.ledger.events("step_finished", step="tumour_ct")
    found = observe(run, run.steps["tumour_ct"], leader.bank.get(event["key"]), open_all(files), base=leader.base)
    both = np.sum([o.observation["intersection"] for o in found], axis=0)
    volumes = np.sum([o.observation["predicted"] + o.observation["truth"] for o in found], axis=0)
    values = {r["center"]: r["value"] for r in event["scores"] if r["task"] == "tumour_ct" and r["metric"] == "dsc_agg"}
    assert values["pooled"] == np.mean(2 * both / volumes)
    assert values["pooled"] != np.mean([values[center] for center in CENTERS])


def test_survival_curves_count_every_test_patient_once(scored):
    _, _, leader = scored
    [event] = leader.ledger.events("step_finished", step="relapse")
    curve = event["curves"]["relapse"]
    assert sum(group[0] for group in curve["at_risk"]) == next(
        r["n"] for r in event["scores"] if r["center"] == "pooled" and r["task"] == "relapse"
    )
    assert event["threshold"] == curve["threshold"]
