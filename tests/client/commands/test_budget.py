"""budget tells what is spent and left, what left without noise first, and begins anew only what cannot be read."""

import json

import pytest

from client.__main__ import main
from client.center.config import read_config
from client.commands.files import vault_of
from client.policy.policy import Budget, Policy
from client.privacy.spending import FILE, Entry, charge, read_account
from client.privacy.unnoised import enter
from common.privacy.accounting import Release
from tests.helpers.actions import order_of

DELTA = 1 / 720
PASS = Release(noise=1.405, rate=8 / 72, draws=450)


@pytest.fixture
def center(tmp_path):
    file = tmp_path / "center.yaml"
    text = f"code: CHUP\nroot: {tmp_path}\nvault: {tmp_path}\npolicy: {{privacy: {{epsilon: 8, delta: {DELTA!r}}}}}\n"
    file.write_text(text)
    return file


def ask(center, *words):
    return main(["budget", "--center", str(center), *words])


def test_an_untouched_center_has_spent_nothing(center, capsys):
    assert ask(center) == 0
    printed = capsys.readouterr().out
    assert "nothing since the account began" in printed and "spent: epsilon 0.00" in printed
    assert "ceiling 8, left 8.00" in printed


def test_what_is_spent_is_told_after_what_left_without_noise(center, capsys, tmp_path):
    vault = vault_of(read_config(center))
    charge(vault, Entry("run", "tumour_ct", 1, "0" * 64, (PASS,)))
    enter(vault, Policy(privacy=Budget(8.0, DELTA)), order_of("scores"), "scores")
    assert ask(center, "--figure", str(tmp_path / "budget.svg")) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Released without noise, which no epsilon covers: scores 1.")
    assert "spent: epsilon 7.06 (by the Renyi accountant 7.99); ceiling 8, left 0.94" in printed
    assert "7.06" in (tmp_path / "budget.svg").read_text()
    assert ask(center, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["center"] == "CHUP" and told["unnoised"] == {"scores": 1} and round(told["spent"], 2) == 7.06
    assert [(line["step"], line["draws"]) for line in told["lines"]] == [("tumour_ct", 450)]
    assert ask(center, "--delta", "2") == 2 and "delta is 2" in capsys.readouterr().err


def test_a_damaged_account_is_begun_anew_only_when_asked_and_says_so_for_good(center, capsys):
    vault = vault_of(read_config(center))
    charge(vault, Entry("run", "tumour_ct", 1, "0" * 64, (PASS,)))
    assert ask(center, "--afresh") == 1 and "nothing to begin afresh" in capsys.readouterr().out
    (vault / FILE).write_text("{}\n")
    assert ask(center) == 2 and "begins a new account that says so" in capsys.readouterr().err
    assert ask(center, "--afresh") == 0
    assert "the damaged one is kept as privacy-damaged-" in capsys.readouterr().out
    assert read_account(vault).lost and read_account(vault).charges == ()
    assert charge(vault, Entry("run", "tumour_ct", 1, "0" * 64, (PASS,)))
    assert ask(center) == 0 and "An earlier account was lost" in capsys.readouterr().out
