"""A step that starts from merged steps: of one it is that one bit for bit; killed, it ends with the same key."""

from __future__ import annotations

import pytest

from common.config.methods.continual import MergeMethod
from common.config.rules import broken_rules
from server import curriculum
from tests.helpers.small import adapters, federate, small_run

CENTERS = ["CHUM", "CHUP"]


def a_run(*specs, rounds=0):
    """One task learned at each of two centers, then merged."""
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    one, two = run.steps.values()
    two.task, two.modalities, two.adapter, two.view = one.task, ["CT"], one.adapter, one.view
    two.modes, two.train_parts, two.starts_from, two.training = [], ["*"], None, one.training
    one.centers, two.centers = ["CHUM"], ["CHUP"]
    for number, spec in enumerate(specs):
        merged = small_run(centers=CENTERS, steps=["tumour_ct"], rounds=rounds).steps["tumour_ct"]
        merged.name, merged.methods = f"merged{number}", [spec]
        run.steps[merged.name] = merged
    return run


BOTH = ["tumour_ct", "tumour_ctpet"]
SPECS = (MergeMethod(of=["tumour_ctpet"], density=1.0), MergeMethod(of=BOTH), MergeMethod(of=BOTH, how="average"))


@pytest.fixture(scope="module")
def leader(small_centers, tmp_path_factory):
    run = a_run(*SPECS)
    assert broken_rules(run) == []
    return federate(run, tmp_path_factory.mktemp("merged") / "run", small_centers)


def test_one_step_merged_is_that_step_bit_for_bit_and_two_are_neither(leader):
    hashes = {step: leader.bank.entry(key).state_hash for step, key in adapters(leader).items()}
    assert hashes["merged0"] == hashes["tumour_ctpet"]
    assert len(set(hashes.values())) == len(hashes) - 1


def test_a_merged_adapter_names_what_it_was_made_of(leader):
    keys = adapters(leader)
    assert leader.bank.entry(keys["merged0"]).parents == [keys["tumour_ctpet"]]
    assert leader.bank.entry(keys["merged1"]).parents == [keys[name] for name in BOTH]


def test_merged_and_trained_on_a_run_is_resumed_to_the_same_keys(small_centers, tmp_path, monkeypatch):
    whole = adapters(federate(a_run(SPECS[1], rounds=1), tmp_path / "whole", small_centers))

    class Killed(BaseException):
        """The process ends here."""

    def die(coordinator, step, *rest):
        if step.name == "merged0":
            raise Killed
        return commit(coordinator, step, *rest)

    commit = curriculum.commit
    with monkeypatch.context() as patch:
        patch.setattr(curriculum, "commit", die)
        with pytest.raises(Killed):
            federate(a_run(SPECS[1], rounds=1), tmp_path / "run", small_centers)
    assert adapters(federate(a_run(SPECS[1], rounds=1), tmp_path / "run", small_centers)) == whole


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (MergeMethod(of=["elsewhere"]), "merges elsewhere; name one or more steps before it: tumour_ct, tumour_ctpet."),
        (MergeMethod(), "merges nothing; name one or more steps before it"),
        (MergeMethod(of=BOTH, how="fisher"), "merges by 'fisher'; it can be arithmetic, average, ties."),
        (MergeMethod(of=BOTH, density=0.0), "method merge has density 0; it must be above 0 and at most 1."),
    ],
)
def test_what_cannot_be_merged_is_said_in_a_sentence(spec, said):
    problems = broken_rules(a_run(spec))
    assert any(said in problem for problem in problems), problems


def test_a_merged_step_starts_from_nothing_else():
    run = a_run(SPECS[1])
    run.steps["merged0"].starts_from = "tumour_ct"
    assert any("starts from merged steps and from another one besides" in problem for problem in broken_rules(run))
