"""A memory holds hashes of training cases; what is erased is gone from it, what vanished is said."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from client.center.center import Center
from client.commands.erase import erase
from client.methods.rehearsal import Rehearsal, drawn
from client.vault.memory import FILE, MemoryProblem
from client.vault.standing import Standing, give_up
from client.vault.vault import Vault
from common.config.methods.continual import RehearsalMethod
from common.config.run import PARTS, BackboneSpec, Split
from common.protocol.messages import Order
from tests.helpers.small import forget, small_run, write_centers, write_cohort

SPEC = RehearsalMethod(at=["CHUM"], cases=2)


@pytest.fixture
def center(tmp_path):
    root = write_cohort(tmp_path / "cohort", {"CHUM": 9})
    forget()
    yield Center.open(write_centers(tmp_path / "centers", root, ["CHUM"])["CHUM"])
    forget()


def order(**changes):
    step = small_run(steps=["tumour_ct"]).steps["tumour_ct"]
    step.methods = [SPEC]
    made = Order(step, 1, 1, BackboneSpec(), "base", Split(folds=3, validation=0.34), run="a" * 8)
    return replace(made, **changes)


def memory(center, asked=None):
    asked = asked or order()
    method = Rehearsal(SPEC, Vault(center.vault, asked))
    return [case.patient for case in method.cases(asked, center.code, center.part(asked, "train"))]


def file_of(center):
    return Vault(center.vault, order()).path / FILE


def test_it_is_drawn_once_from_the_training_cases_alone_and_kept_without_a_name(center):
    first = memory(center)
    sides = {name: {case.patient for case in center.part(order(), name)} for name in PARTS}
    assert len(first) == 2 and {*first} <= sides["train"] and not {*first} & (sides["test"] | sides["validation"])
    assert memory(center, order(round=2, since=1)) == first
    text = file_of(center).read_text()
    assert "CHUM" not in text and not any(patient in text for patient in first)


def test_elsewhere_everybody_is_trained_on(center):
    asked = order()
    train = center.part(asked, "train")
    assert Rehearsal(RehearsalMethod(at=["MDA"]), Vault(center.vault, asked)).cases(asked, "CHUM", train) == train
    assert not file_of(center).exists()


def test_an_erased_patient_leaves_the_memory(center):
    first = memory(center)
    erase(center, first[0])
    forget()
    again = Center(center.config)
    assert memory(again, order(round=2, since=1)) == first[1:]
    assert len(json.loads(file_of(center).read_text())["value"]) == 1


def test_a_case_whose_files_changed_is_no_more_rehearsed_and_without_any_nothing_is(center):
    first = memory(center)
    cases = {case.patient: case for case in center.part(order(), "train")}
    label = cases[first[0]].label
    label.write_bytes(label.read_bytes() + b" ")
    assert memory(center, order(round=2, since=1)) == first[1:]
    other = cases[first[1]].label
    other.write_bytes(other.read_bytes() + b" ")
    with pytest.raises(MemoryProblem, match="None of the 2 cases in the memory of step 'tumour_ct' is as it was"):
        memory(center, order(round=2, since=1))


def test_a_lost_memory_is_a_code_until_the_hospital_accepts_the_loss(center):
    first, later = memory(center), order(round=3, since=2)
    Standing(center.vault, order()).trained()
    file_of(center).unlink()
    with pytest.raises(MemoryProblem, match="made of that memory") as raised:
        memory(center, later)
    assert raised.value.code == "vault.memory"
    give_up(center.vault)
    assert memory(center, later) == first, "the same seed draws the same cases"


def test_a_damaged_memory_is_said(center):
    memory(center)
    file_of(center).write_text(file_of(center).read_text().replace("content", "contend"))
    with pytest.raises(MemoryProblem, match="restore the vault from a backup"):
        memory(center, order(round=2, since=1))


def test_each_set_is_as_likely_as_any_other_and_all_are_all():
    generator = torch.Generator().manual_seed(0)
    found = [tuple(drawn("abcd", 2, generator=generator)) for _ in range(3000)]
    counts = {pair: found.count(pair) for pair in set(found)}
    assert len(counts) == 6 and all(abs(count - 500) < 100 for count in counts.values())
    assert drawn("abcd", 9, generator=generator) == list("abcd")
