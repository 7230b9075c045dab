"""The hospital's own split: DEFECTS A1 and A9 with the right values, refusals, first sight, two processes."""

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import combinations, product
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.center.patients import part_of
from client.data.case import Case
from client.data.splits import Deal, split_cases
from client.vault.cohort import ERASED, FILE, append, read_cohort
from client.vault.folds import said, sides
from client.vault.standing import VaultError
from common.config.adapter import Adapter, LinearPart
from common.config.run import PARTS, Split
from common.config.step import Step
from common.config.task import ClassificationTask, PrognosisTask, SegmentationTask
from common.data.batch import CT, EHR, PET, RECORD
from common.errors import PolicyRefusal

SPLIT = Split(seed=1, folds=5, validation=0.2)


def person(number, *, event=0, hpv=True, pet=True):
    images = {"CT": None, **({"PET": None} if pet else {})}
    record = {"hpv": 1.0} if hpv else {}
    return Case(f"MDA-{number:03d}", "MDA", images, None, record, None if event is None else 9.0, event, None, None)


def by_side(cases, found, keep=lambda case: True):
    return {name: {c.patient for c in cases if found[c.patient] == name and keep(c)} for name in PARTS}


def test_first_sight_is_the_deal_of_split_cases(tmp_path):
    cases = [person(n, event=n % 3 == 0) for n in range(60)]
    for fold in range(5):
        split = replace(SPLIT, fold=fold)
        found = by_side(cases, sides(cases, split, vault=tmp_path))
        assert found == {name: {c.patient for c in part} for name, part in split_cases(cases, split=split).items()}


def test_no_hpv_test_patient_has_trained_another_step(tmp_path):
    """DEFECTS A9: 41 of 68 had, when the deal was over the patients usable for the step."""
    rng = random.Random(0)
    cases = [person(n, event=int(rng.random() < 0.21), hpv=rng.random() < 0.45) for n in range(488)]
    hpv = by_side(cases, sides(cases, SPLIT, vault=tmp_path), keep=lambda case: "hpv" in case.record)
    all_of_them = by_side(cases, sides(cases, SPLIT, vault=tmp_path))
    assert 35 <= len(hpv["test"]) <= 60
    assert len(hpv["test"] & (all_of_them["train"] | all_of_them["validation"])) == 0


@pytest.mark.parametrize("event", [0, 1, None])
def test_a_new_patient_moves_nobody(tmp_path, event):
    """DEFECTS A9: one patient more without an event at MDA (198) moved 21 of 40 from training to test."""
    cases = [person(n, event=int(n < 42)) for n in range(198)]
    before = sides(cases, SPLIT, vault=tmp_path)
    after = sides([*cases, person(900, event=event)], SPLIT, vault=tmp_path)
    assert {patient: after[patient] for patient in before} == before and len(after) == 199


@pytest.mark.parametrize("fold", range(14))
def test_a_server_cannot_leave_out_one_patient_at_a_time(tmp_path, fold):
    """DEFECTS A1: 14 orders of 14 folds without validation gave every patient's age by differencing."""
    cases = [person(n, event=n % 2) for n in range(14)]
    sides(cases, SPLIT, vault=tmp_path)
    with pytest.raises(PolicyRefusal, match="client split --release") as refusal:
        sides(cases, Split(seed=1, folds=14, fold=fold, validation=0.0), vault=tmp_path)
    assert refusal.value.code == "declined.split"


@pytest.mark.parametrize("changed", [{"seed": 2}, {"folds": 4}, {"validation": 0.25}])
def test_another_split_is_refused_and_the_sentence_says_which_is_the_hospitals(tmp_path, changed):
    cases = [person(n) for n in range(9)]
    sides(cases, SPLIT, vault=tmp_path, by="the order for step 'a'")
    with pytest.raises(PolicyRefusal, match=r"split is seed 1, 5 folds, validation 0\.2, fixed on .* by the order for"):
        sides(cases, replace(SPLIT, **changed), vault=tmp_path)
    assert len(sides(cases, replace(SPLIT, fold=3), vault=tmp_path)) == 9  # which folds may test is the policy's matter


def test_the_hospitals_file_comes_first_and_a_changed_file_is_told(tmp_path):
    cases, own = [person(n) for n in range(9)], Deal(1, 5, 0.2)
    with pytest.raises(PolicyRefusal, match=r"fixed by center\.yaml"):
        sides(cases, replace(SPLIT, seed=7), vault=tmp_path, declared=own)
    sides(cases, SPLIT, vault=tmp_path, declared=own, by="an order")
    assert read_cohort(tmp_path).fixed_by == "center.yaml"
    with pytest.raises(PolicyRefusal, match=r"center\.yaml declares seed 7.*split is seed 1"):
        sides(cases, SPLIT, vault=tmp_path, declared=Deal(7, 5, 0.2))


def test_a_first_order_may_not_fix_a_fold_for_each_patient(tmp_path):
    cases, extreme = [person(n) for n in range(50)], Split(folds=50, validation=0.0)
    with pytest.raises(PolicyRefusal, match="20 folds"):
        sides(cases, extreme, vault=tmp_path)
    assert len(sides(cases, extreme, vault=tmp_path, declared=Deal(0, 50, 0.0))) == 50  # the hospital may


def test_to_look_fixes_nothing(tmp_path):
    cases = [person(n) for n in range(9)]
    looked = sides(cases, SPLIT, vault=tmp_path, keep=False)
    assert list(tmp_path.iterdir()) == [] and looked == sides(cases, SPLIT, vault=tmp_path)
    grown = [*cases, person(20)]
    assert len(sides(grown, SPLIT, vault=tmp_path, keep=False)) == 10 and len(read_cohort(tmp_path).places) == 9


def test_the_split_in_a_sentence(tmp_path):
    assert said(read_cohort(tmp_path), None, [0]).startswith("The split is not fixed yet: the first order")
    assert "declared in center.yaml" in said(read_cohort(tmp_path), Deal(), None)
    sides([person(n) for n in range(9)], SPLIT, vault=tmp_path, by="the order for step 'a'")
    sentence = said(read_cohort(tmp_path), None, [0])
    assert sentence.startswith("The split is seed 1, 5 folds, validation 0.2, fixed on ")
    assert sentence.endswith("by the order for step 'a'; 9 patients have their place; fold 0 may test.")


def test_damage_is_no_new_deal(tmp_path):
    cases = [person(n) for n in range(9)]
    sides(cases, SPLIT, vault=tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes().replace(b'"seed":1', b'"seed":2'))
    with pytest.raises(VaultError, match=FILE):
        sides(cases, SPLIT, vault=tmp_path)


def from_process(vault, number):
    """What one process sees: nine patients, and some that only it knows."""
    cases = [person(n) for n in range(9)] + [person(100 * number + n, event=n % 2) for n in range(3)]
    return sides(cases, SPLIT, vault=vault)


def test_processes_that_come_at_once_agree(tmp_path):
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        found = list(pool.map(partial(from_process, tmp_path), range(1, 4)))
    places, again = {}, {}
    for number, sides_seen in enumerate(found, start=1):
        again |= from_process(tmp_path, number)
        assert all(places.get(patient, side) == side for patient, side in sides_seen.items())
        places |= sides_seen
    assert again == places and len(places) == 18 == len(read_cohort(tmp_path).places)


PEOPLE = st.builds(dict, event=st.sampled_from([0, 1, None]), hpv=st.booleans(), pet=st.booleans())
STEPS = {
    "everyone": lambda case: True,
    "hpv": lambda case: "hpv" in case.record,
    "outcome": lambda case: case.event is not None,
    "pet": lambda case: "PET" in case.images,
    "pet and hpv": lambda case: "PET" in case.images and "hpv" in case.record,
}


@settings(max_examples=40, deadline=None)
@given(
    waves=st.lists(st.lists(PEOPLE, max_size=9), min_size=1, max_size=4),
    split=st.builds(
        Split, seed=st.integers(0, 3), folds=st.integers(2, 5), validation=st.sampled_from([0.0, 0.2, 0.34])
    ),
    data=st.data(),
)
def test_nobody_ever_changes_sides(tmp_path_factory, waves, split, data):
    """Across steps of any needs, growth, erasure and follow-up that changes a stratum, for every test fold."""
    vault, cases, seen = tmp_path_factory.mktemp("v"), [], {}
    for wave in waves:
        cases += [person(len(cases) + i, **who) for i, who in enumerate(wave)]
        for fold in range(split.folds):
            found = sides(cases, replace(split, fold=fold), vault=vault)
            assert set(found) == {case.patient for case in cases}
            for needs in STEPS.values():
                for name, patients in by_side(cases, found, needs).items():
                    assert all(seen.setdefault((patient, fold), name) == name for patient in patients)
        for case in cases[:: data.draw(st.integers(2, 5))]:
            cases[cases.index(case)] = replace(case, event=data.draw(st.sampled_from([0, 1])))
        if cases and data.draw(st.booleans()):
            gone = cases.pop(data.draw(st.integers(0, len(cases) - 1)))
            cohort = read_cohort(vault)
            append(vault, ERASED, {"patient": cohort.hashed(gone)}, key=cohort.key)
            assert cohort.hashed(gone) in read_cohort(vault).places
    for fold in range(split.folds):
        ever = {name: {p for (p, f), side in seen.items() if f == fold and side == name} for name in PARTS}
        assert not ever["test"] & (ever["train"] | ever["validation"])


MODALITY_SETS = [list(some) for size in range(1, 5) for some in combinations((CT, PET, EHR, RECORD), size)]
TASKS = [
    SegmentationTask(structures=["GTVp"]), PrognosisTask(),
    ClassificationTask(target="hpv", classes=["hpv"], form="binary"),
]  # fmt: skip
ANYBODY = st.builds(
    dict,
    ct=st.booleans(),
    pet=st.booleans(),
    hpv=st.booleans(),
    label=st.booleans(),
    event=st.sampled_from([0, 1, None]),
)


def somebody(number, *, ct, pet, hpv, label, event):
    images = {**({CT: Path("ct")} if ct else {}), **({PET: Path("pet")} if pet else {})}
    record = {"age": 60.0, **({"hpv": 1.0} if hpv else {})}
    days = None if event is None else 9.0
    return Case(f"MDA-{number:03d}", "MDA", images, Path("label") if label else None, record, days, event, None, None)


def test_of_any_modalities_somebody_trains_and_somebody_tests(tmp_path):
    """What the next test looks at is not nobody."""
    cases = [
        somebody(n, ct=True, pet=n % 2 > 0, hpv=n % 3 > 0, label=True, event=n % 2) for n in range(30)
    ]  # fmt: skip
    dealt = sides(cases, SPLIT, vault=tmp_path)
    for modalities, task in product(MODALITY_SETS, TASKS):
        step = Step("any", modalities=modalities, task=task, adapter=Adapter({"linear": LinearPart()}))
        train, test = (len(part_of(cases, dealt, step, name)) for name in ("train", "test"))
        assert train > test > 0 or CT not in modalities, (modalities, task.kind)


@settings(max_examples=12, deadline=None)
@given(waves=st.lists(st.lists(ANYBODY, max_size=8), min_size=1, max_size=3), data=st.data())
def test_nobody_is_on_two_sides_of_steps_of_any_modalities_and_tasks(tmp_path_factory, waves, data):
    """All fifteen sets of modalities under each task, through the cases that such a step can use, as orders come."""
    vault, cases, seen = tmp_path_factory.mktemp("v"), [], {}
    for wave in waves:
        cases += [somebody(len(cases) + i, **who) for i, who in enumerate(wave)]
        if cases and data.draw(st.booleans()):
            gone = cases.pop(data.draw(st.integers(0, len(cases) - 1)))
            cohort = read_cohort(vault)
            append(vault, ERASED, {"patient": cohort.hashed(gone)}, key=cohort.key)
        for modalities in data.draw(st.permutations(MODALITY_SETS)):
            for task in TASKS:
                step = Step("any", modalities=modalities, task=task, adapter=Adapter({"linear": LinearPart()}))
                dealt = sides(cases, SPLIT, vault=vault)
                for name in PARTS:
                    for case in part_of(cases, dealt, step, name):
                        assert seen.setdefault(case.patient, name) == name


def test_a_split_over_all_centers_is_fixed_as_such_and_told_from_the_usual_one(tmp_path):
    cases = [person(number, event=number % 2) for number in range(7)]
    shared = replace(SPLIT, everywhere=False)
    first = sides(cases, shared, vault=tmp_path, by="the first order")
    assert read_cohort(tmp_path).deal == Deal(1, 5, 0.2, everywhere=False)
    assert sides(cases, shared, vault=tmp_path) == first
    with pytest.raises(PolicyRefusal, match=r"validation 0\.2 over all centers, fixed"):
        sides(cases, SPLIT, vault=tmp_path)
