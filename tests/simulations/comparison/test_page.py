"""Comparisons: paired by patient, intervals only where there are patients enough, whatever the sign."""

import json

import jsonschema
import pytest

from common.config.load import compose_run
from common.store.ledger import Ledger
from server.report.results import SCHEMA
from simulations.comparison.comparing import Comparing
from simulations.comparison.names import CENTRALIZED, FEDERATED, LOCAL, RANDOM, UNTRAINED
from simulations.comparison.page import compare, notes_of
from simulations.comparison.paired import arm_rows, comparisons_of, harmed_centers, patients_of, shares_of_centralized


def record(overlap: float) -> dict:
    """A segmentation case whose Dice is ``overlap`` for both structures."""
    return {"intersection": [overlap] * 2, "predicted": [1.0] * 2, "truth": [1.0] * 2}


def measured(mm: float, overlap: float) -> dict:
    """The same, scored where it was drawn: both structures ``mm`` away."""
    lesions = {"lesions_found": [1.0] * 2, "lesions_false": [0.0] * 2, "lesions_missed": [0.0] * 2}
    return record(overlap) | {"hd95": [mm] * 2, "surface_dice": [overlap] * 2, **lesions}


def write(folder, arm, step, overlaps, *, cell="fold0-seed1"):
    rows = [{"center": p.split("-")[0], "patient": p, "record": record(v)} for p, v in overlaps.items()]
    path = folder / "records" / cell / arm / f"{step}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def write_measured(folder, arm, step, mm, patients):
    rows = [{"center": p.split("-")[0], "patient": p, "record": measured(mm + i, 0.5)} for i, p in enumerate(patients)]
    (folder / "records/fold0-seed1" / arm / f"{step}.json").write_text(json.dumps(rows))


@pytest.fixture
def comparing(tmp_path):
    """tumour_ct and its CT + PET successor, six patients at CHUM and two at MDA."""
    run = compose_run(["curriculum=smoke", "compare.draws=200"])
    patients = [*(f"CHUM-{i:03d}" for i in range(6)), "MDA-001", "MDA-002"]
    for step in run.steps:
        write(tmp_path, FEDERATED, step, dict.fromkeys(patients, 0.6))
        write(tmp_path, CENTRALIZED, step, dict.fromkeys(patients, 0.7))
        write(tmp_path, RANDOM, step, dict.fromkeys(patients, 0.6))
        write(tmp_path, UNTRAINED, step, dict.fromkeys(patients, 0.0))
        write(tmp_path, f"{LOCAL}-CHUM", step, {p: 0.8 for p in patients if p.startswith("CHUM")})
        write(tmp_path, f"{LOCAL}-MDA", step, {p: 0.1 for p in patients if p.startswith("MDA")})
    return Comparing(run, tmp_path, ())


def found(comparing, other, metric="dice", task="tumour_ct"):
    [one] = [c for c in comparisons_of(comparing) if (c.task, c.b, c.metric) == (task, other, metric)]
    return one


def test_local_records_of_all_centers_are_one_arm(comparing):
    assert len(patients_of(comparing, LOCAL, "tumour_ct")) == 8


@pytest.mark.parametrize(("other", "difference"), [(CENTRALIZED, -0.1), (RANDOM, 0.0), (UNTRAINED, 0.6)])
def test_differences_are_reported_whatever_their_sign(comparing, other, difference):
    one = found(comparing, other)
    assert one.difference.value == pytest.approx(difference) and one.difference.n == 8
    assert one.difference.interval == pytest.approx((difference, difference))


def test_non_inferiority_is_said_only_where_the_interval_shows_it(comparing):
    assert found(comparing, CENTRALIZED).note == "non-inferiority at margin 0.01 not shown"


def test_a_center_is_harmed_only_by_its_whole_interval_and_few_patients_have_none(comparing):
    harmed = {c.a: c for c in harmed_centers(comparing) if c.task == "tumour_ct"}
    assert harmed["federated at CHUM"].note == "harmed"
    assert harmed["federated at MDA"].difference.interval is None and "fewer than 5" in harmed["federated at MDA"].note
    assert "tumour_ct, federated at CHUM" in notes_of(comparing, harmed_centers(comparing))[-1]


def test_what_federated_keeps_of_centralized_is_said_overall_and_at_the_worst_center_that_is_large_enough(comparing):
    own = {f"CHUM-{i:03d}": 0.3 for i in range(6)} | {"MDA-001": 0.0, "MDA-002": 0.0}
    write(comparing.folder, FEDERATED, "tumour_ct", own)
    [said] = [s for s in shares_of_centralized(comparing) if s.startswith("tumour_ct:")]
    assert said == "tumour_ct: 32% of centralized dsc_agg, at the worst center 43% (CHUM)"
    assert said in notes_of(comparing, [])[-2]


def test_rows_of_an_arm_have_an_interval_pooled_and_a_value_per_center(comparing):
    rows = {(r["metric"], r["center"]): r for r in arm_rows(comparing, CENTRALIZED) if r["task"] == "tumour_ct"}
    assert rows["dice", "pooled"]["value"] == pytest.approx(0.7) == rows["dice", "pooled"]["low"]
    assert rows["dice", "MDA"]["n"] == 2


def test_distances_are_compared_where_cases_were_scored_as_drawn_and_less_is_better(comparing):
    patients = [p.patient for p in patients_of(comparing, CENTRALIZED, "tumour_ct")]
    write_measured(comparing.folder, FEDERATED, "tumour_ct", 5.0, patients)
    write_measured(comparing.folder, CENTRALIZED, "tumour_ct", 9.0, patients)
    farther = found(comparing, CENTRALIZED, "hd95")
    assert farther.difference.value == -4.0 and farther.gain.interval == (4.0, 4.0) and farther.note == ""
    assert found(comparing, CENTRALIZED, "surface_dice").difference.value == 0.0
    assert found(comparing, CENTRALIZED, "lesion_f1").difference.value == 0.0
    assert {r["metric"] for r in arm_rows(comparing, CENTRALIZED) if r["task"] == "tumour_ct"} == {
        "dsc_agg", "dice", "hd95", "surface_dice", "lesion_f1"
    }  # fmt: skip
    of_others = [c for c in comparisons_of(comparing) if c.metric == "hd95"]
    assert [(c.task, c.b) for c in of_others] == [("tumour_ct", CENTRALIZED)]
    assert {r["metric"] for r in arm_rows(comparing, RANDOM)} == {"dsc_agg", "dice"}


def test_the_page_says_where_tuning_is_not_equal(comparing):
    assert not [note for note in notes_of(comparing, []) if "not equal" in note]
    comparing.run.controls["tumour_ct"] = comparing.run.steps["tumour_ct"]
    comparing.run.compare.learning_rates = [0.3, 1.0]
    [said] = [note for note in notes_of(comparing, []) if note.startswith("Tuning is not equal. tumour_ct: ")]
    assert "not tuned" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_comparison_is_valid_and_continues_where_it_stopped(tmp_path, small_root):
    said: list[str] = []
    overrides = ["curriculum=smoke", f"out={tmp_path}", "data=folder", f"data.root={small_root}", "compare.draws=50",
                 "compare.learning_rates=[0.1,1]",
                 "steps.tumour_ct.rounds=1", "steps.tumour_ctpet.rounds=1"]  # fmt: skip
    overrides += [
        f"steps.{name}.view.{key}=[16,16,16]" for name in ("tumour_ct", "tumour_ctpet") for key in ("size", "window")
    ]
    folder, differences = compare(overrides, say=said.append)
    results = json.loads(folder.results.read_text())
    jsonschema.validate(results, json.loads(SCHEMA.read_text()))
    arms = {row["arm"] for row in results["scores"]}
    assert {FEDERATED, CENTRALIZED, LOCAL, RANDOM, UNTRAINED} <= arms
    assert {c.b for c in differences} >= {CENTRALIZED, LOCAL, RANDOM, UNTRAINED}
    assert "federated" in folder.report.read_text()
    tuned = {
        path.stem: json.loads(path.read_text()) for path in (tmp_path / "compare-smoke" / "tuning").glob("*/*.json")
    }
    assert {FEDERATED, "random-backbone", CENTRALIZED, "local-CHUM", "local-MDA"} <= set(tuned)
    assert all(set(tried) == {"0.1", "1"} for found in tuned.values() for tried in found["tried"].values())
    trials = [Ledger(path) for path in (tmp_path / "compare-smoke" / "tuning").rglob("ledger*")]
    assert trials and not any(e["evaluated_at"] for trial in trials for e in trial.events("step_finished"))

    said.clear()
    again, repeated = compare(overrides, say=said.append)
    assert "0 tuning jobs to run" in said and "0 baseline jobs to run" in said
    assert repeated == differences and json.loads(again.results.read_text()) == results
