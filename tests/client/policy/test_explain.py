"""A policy in sentences: every field decides at least one, and a sentence says what an order then meets."""

from dataclasses import fields

import pytest

from client.__main__ import main
from client.policy import Policy
from client.policy.explain import CAN, CANNOT, SUMS_SAY, explained, in_short
from client.policy.policy import SUMS, Budget

STRICT = Policy(
    tasks=["segmentation"], federations=["mean"], parts=["decoder"], sums=["scores"], bases=["0" * 64],
    initialisations=["1" * 64], require_privacy=True, require_secure_aggregation=True, quiet_hours=["08:00-18:00"],
)  # fmt: skip


def said(policy, about, field):
    return " ".join(one.says for one in explained(policy) if one.about == about and one.decided_by == field)


def test_every_field_decides_a_sentence():
    decided = {one.decided_by for one in explained(STRICT)}
    assert decided == {option.name for option in fields(Policy)} | {"always"}


def test_a_default_hospital_refuses_raw_gradients_and_first_layers_and_says_why():
    assert "full: it trains and sends tensors" in said(Policy(), CANNOT, "parts")
    assert "patch_embed" in said(Policy(), CANNOT, "parts") and "resolution" in said(Policy(), CANNOT, "parts")
    assert "scaffold: what its first round sends is a mean raw gradient" in said(Policy(), CANNOT, "federations")
    assert "ask for scaffold, although" in said(Policy(federations=["all"]), CAN, "federations")
    assert said(Policy(parts=["all"]), CANNOT, "parts") == ""


def test_a_list_is_read_out():
    assert said(STRICT, CAN, "tasks") == "ask for steps of the tasks segmentation"
    assert said(STRICT, CANNOT, "tasks") == "ask for steps of other tasks"
    assert said(STRICT, CAN, "sums") == "ask for sums of test and validation scores"
    assert "Hessians" in said(STRICT, CANNOT, "sums") and set(SUMS) == set(SUMS_SAY)
    assert "08:00 to 18:00" in said(STRICT, CANNOT, "quiet_hours")


def test_a_ceiling_is_read_out():
    spends = Policy(privacy=Budget(8.0, 0.001))
    assert "spend more than epsilon 8 at delta 0.001 of a patient's privacy, over every" in said(
        spends, CANNOT, "privacy"
    )
    assert "each is a line in the privacy account" in said(spends, CAN, "privacy")
    assert "scores without noise, statistics or losses" in said(Policy(privacy=Budget(strict=True)), CANNOT, "privacy")
    assert "without noise, as often as it likes" in said(Policy(), CAN, "privacy")
    assert "spends at most epsilon 8 at delta 0.001" in in_short(spends)
    assert "learns with noise only" in in_short(Policy(require_privacy=True))


def test_a_cross_validated_study_is_put_in_words():
    assert "folds other than 0" in said(Policy(), CANNOT, "test_folds")
    assert "who trained then tests" in said(Policy(test_folds="all"), CAN, "test_folds")


@pytest.mark.parametrize("words", [["--explain"], [], ["--json"]])
def test_the_command_prints_it(tmp_path, capsys, words):
    file = tmp_path / "center.yaml"
    file.write_text(f"code: CHUM\nroot: {tmp_path}\n")
    assert main(["policy", str(file), *words]) == 0
    printed = capsys.readouterr().out
    assert "CHUM" in printed and ("maximum_seconds" in printed) == bool(words)
    assert in_short(Policy()).startswith("Trains with 5 cases or more, tells results of 5 or more, tests on fold 0")


def test_a_policy_that_cannot_be_read_is_a_sentence(tmp_path, capsys):
    file = tmp_path / "center.yaml"
    file.write_text(f"code: CHUM\nroot: {tmp_path}\npolicy: {{quiet_hours: [noon]}}\n")
    assert main(["policy", str(file)]) == 2 and "quiet_hours holds 'noon'" in capsys.readouterr().err
    file.write_text(f"code: CHUM\nroot: {tmp_path}\npolicy: {{privacy: {{epsilon: 8}}}}\n")
    assert main(["policy", str(file)]) == 2 and "epsilon 8.0 and delta None; write both" in capsys.readouterr().err
    file.write_text(f"code: CHUM\nroot: {tmp_path}\npolicy: {{privacy: {{epsilon: 8, delta: 1e-3}}}}\n")
    assert main(["policy", str(file)]) == 0 and "epsilon 8 at delta 0.001" in capsys.readouterr().out
