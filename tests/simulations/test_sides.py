"""Sides over whole curricula: nobody whom a step trained on, or chose by, is ever a test patient of any step.

Warm starts (`starts_from`), shared lineages and whatever a method keeps of earlier steps draw on those steps' training
and validation cases alone, so it is enough that these never meet a test patient, while centers grow, erase patients and
lack what HECKTOR's centers lack (weights, HPV status, outcomes, PET).
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from client.center.center import Center
from client.center.config import CenterConfig
from client.data.case import Case
from client.data.dataset import usable
from client.data.splits import split_cases
from client.policy import Policy
from client.vault.cohort import ERASED, append, read_cohort
from common.config.load import compose_run
from common.config.run import Run
from common.protocol.messages import Order

CURRICULA = sorted(path.stem for path in Path("configs/curriculum").glob("*.yaml"))
# code -> patients, of whom this many lack HPV status, as in HECKTOR 2022
HECKTOR = {"CHUM": (56, 34), "CHUP": (72, 14), "CHUS": (72, 39), "CHUV": (53, 48), "HGJ": (55, 17), "HMR": (18, 16),
           "MDA": (198, 16), "CHEST": (60, 60)}  # fmt: skip


def person(code: str, number: int, rng: random.Random, *, lacks_hpv: bool) -> Case:
    """A patient without files; nothing here opens any."""
    images = {"CT": Path("ct"), **({"PET": Path("pet")} if rng.random() < 0.9 else {})}
    record = {"age": 50.0 + number % 40, "t_stage": rng.choice(["T1", "T2", "T3", "T4"]), "weight": 70.0}
    record |= {} if lacks_hpv else {"hpv": float(rng.random() < 0.8)}
    event = rng.choice([0, 0, 0, 1, None])
    findings = tuple(rng.choice([0, 1, -1]) for _ in range(18)) if code == "CHEST" else None
    days = None if event is None else rng.uniform(100, 3000)
    label = Path("label") if rng.random() < 0.95 else None
    return Case(f"{code}-{number:03d}", code, images, label, record, days, event, findings, None)


def hospital(code: str, cases: list[Case], vault: Path) -> Center:
    """A center with these cases, opened anew."""
    erased = read_cohort(vault / code)
    center = Center(CenterConfig(code, "nowhere", vault=str(vault), policy=Policy(test_folds="all")))
    center.cases = [case for case in cases if not erased.is_erased(case.patient)]  # instead of a folder's
    return center


def cohort(seed: int, *, every: int = 1) -> dict[str, list[Case]]:
    """Centers of HECKTOR's sizes, or of one of ``every`` patients."""
    rng = random.Random(seed)
    return {
        code: [person(code, number, rng, lacks_hpv=number <= lacking) for number in range(1, size + 1, every)]
        for code, (size, lacking) in HECKTOR.items()
    }


def order_of(run: Run, name: str) -> Order:
    step = run.steps[name]
    if step.modalities == ["all"]:  # of an own folder: what it holds
        step = replace(step, modalities=["CT", "PET"])
    return Order(step, run.seed, 1, run.backbone, "base", run.data.split)


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("reverse", [False, True])
def test_no_step_ever_learns_from_a_test_patient_of_any_step(curriculum, reverse, tmp_path):
    run = compose_run([f"curriculum={curriculum}", "with_controls=true"])
    steps = sorted(run.steps | run.controls, reverse=True) if reverse else [*(run.steps | run.controls)]
    run.steps |= run.controls
    people, rng = cohort(seed=3, every=4), random.Random(4)
    learned, tested = defaultdict(set), defaultdict(set)
    for name in steps:
        order = order_of(run, name)
        for code, cases in people.items():
            center = hospital(code, cases, tmp_path)
            for part in ("train", "validation"):
                learned[name] |= {case.patient for case in center.part(order, part)}
            tested[name] |= {case.patient for case in center.part(order, "test")}
            cases.append(person(code, 1000 + len(cases), rng, lacks_hpv=rng.random() < 0.5))  # the center grows
            gone = rng.choice(center.cases)
            key = read_cohort(tmp_path / code).key
            append(tmp_path / code, ERASED, {"patient": read_cohort(tmp_path / code).hashed(gone)}, key=key)
    for step, patients in tested.items():
        for other, trained in learned.items():
            assert not patients & trained, f"{other} learned from {len(patients & trained)} test patients of {step}"
    assert all(learned[name] and tested[name] for name in steps)


def test_a_deal_over_the_usable_patients_would_have_leaked():
    """What the test above would see at 51787b9, with the classification of HPV beside the segmentation."""
    run = compose_run(["curriculum=diagnosis"])
    everyone = [case for cases in cohort(seed=3).values() for case in cases]
    by_step = {
        name: split_cases([case for case in everyone if usable(case, step)], split=run.data.split)
        for name, step in run.steps.items()
    }
    learned = {case.patient for parts in by_step.values() for name in ("train", "validation") for case in parts[name]}
    tested = {case.patient for parts in by_step.values() for case in parts["test"]}
    assert len(learned & tested) > 40


def test_every_place_that_learns_sees_the_same_sides(small_centers):
    """A federation's centers, all of them in one place, each alone, and features encoded beforehand."""
    from simulations.comparison.baselines import pooled
    from simulations.virtual.features import FeatureCenter, FeatureTable
    from tests.helpers.small import open_all, small_run

    run = small_run(steps=["relapse", "tumour_ct"])
    centers = open_all(small_centers)
    for name in run.steps:
        order = replace(order_of(run, name), base="base")
        together, encoded = pooled(centers), FeatureCenter("ALL", centers, FeatureTable({}, {}, {}))
        for part in ("train", "validation", "test"):
            apart = [case.patient for center in centers for case in center.part(order, part)]
            assert [case.patient for case in together.part(order, part)] == apart
            assert [case.patient for case in encoded.part(order, part)] == apart
            everyone = [case for center in centers for case in center.cases]
            counted = {case.patient for case in split_cases(everyone, split=order.split)[part]}
            assert set(apart) <= counted  # what `client describe` and a plan of a run count, before a vault is there
