"""What is held back: an erased patient is on no side of any split, nobody else changes sides, and no name is left."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from client.center.center import Center
from client.commands.erase import erase
from client.vault.cohort import read_cohort
from client.vault.erased import hold_back
from common.config.adapter import Adapter, LinearPart
from common.config.run import PARTS, BackboneSpec, Split
from common.config.task import ClassificationTask
from common.protocol.messages import Order
from tests.helpers.small import forget, small_run, write_centers, write_cohort

STEPS = ["tumour_ct", "pet", "relapse", "report", "record", "hpv"]


def order(name="tumour_ct"):
    run = small_run(steps=["tumour_ct", "relapse"])
    step = run.steps[name if name in run.steps else "tumour_ct"]
    if name == "hpv":
        step.task = ClassificationTask(classes=["hpv"], form="binary", target="hpv")
    if name in ("report", "record"):
        step.task, step.modalities = run.steps["relapse"].task, ["EHR"] if name == "report" else ["CT", "RECORD"]
        step.adapter = run.steps["relapse"].adapter if name == "report" else Adapter({"linear": LinearPart()})
    if name == "pet":
        step.modalities = ["PET"]
    return Order(step, 1, 1, BackboneSpec(), "base", Split(folds=3, validation=0.34))


def parts(center, step="tumour_ct"):
    return {name: [case.patient for case in center.part(order(step), name)] for name in PARTS}


@settings(max_examples=16, deadline=None)
@given(erased=st.sets(st.integers(1, 7), max_size=6), step=st.sampled_from(STEPS), first=st.sampled_from(STEPS))
def test_erasing_moves_nobody_else(small_root, tmp_path_factory, erased, step, first):
    file = write_centers(tmp_path_factory.mktemp("c"), small_root, ["MDA"])["MDA"]
    before = parts(Center.open(file), step)
    everyone = {case.patient for case in Center.open(file).cases}
    parts(Center.open(file), first)
    gone = {f"MDA-{number:03d}" for number in erased}
    for patient in sorted(gone):
        erase(Center.open(file), patient)
    after = parts(Center.open(file), step)
    assert after == {name: [p for p in patients if p not in gone] for name, patients in before.items()}
    assert {case.patient for case in Center.open(file).cases} == everyone - gone


def test_the_split_holds_when_the_files_are_gone_too(tmp_path):
    root = write_cohort(tmp_path / "cohort", {"CHUM": 6})
    file = write_centers(tmp_path / "centers", root, ["CHUM"])["CHUM"]
    before = parts(Center.open(file), "relapse")
    erase(Center.open(file), "CHUM-003")
    for path in [*root.rglob("CHUM-003*")]:
        path.unlink()
    for table in root.glob("*.csv"):
        table.write_text("".join(line for line in table.read_text().splitlines(True) if "CHUM-003" not in line))
    forget()
    assert parts(Center.open(file), "relapse") == {n: [p for p in ps if p != "CHUM-003"] for n, ps in before.items()}


def test_a_patient_erased_before_anything_was_split_has_no_place(tmp_path, small_root):
    file = write_centers(tmp_path, small_root, ["CHUM"])["CHUM"]
    erase(Center.open(file), "CHUM-003")
    assert "CHUM-003" not in {p for patients in parts(Center.open(file)).values() for p in patients}
    assert len(read_cohort(Center.open(file).vault).places) == 5


def test_modalities_that_the_hospital_does_not_share_are_not_there(small_centers):
    center = Center.open(small_centers["CHUM"])
    shown = hold_back(center.cases, cohort=read_cohort(center.vault), modalities=["CT"])
    assert {tuple(case.images) for case in shown} == {("CT",)} and not any(case.record for case in shown)
    assert [case.label for case in shown] == [case.label for case in center.cases]
    assert all(case.event is not None for case in shown)
    assert hold_back(shown, cohort=read_cohort(center.vault), modalities=[])[0] == replace(shown[0], images={})
