"""doctor tells what is spent of the hospital's ceiling, and what of the account cannot be believed."""

import pytest

from client.center.config import CenterConfig
from client.doctor.account import check_account
from client.doctor.finding import ERROR, NOTE, WARNING
from client.policy.policy import Budget, Policy
from client.privacy.spending import FILE, Entry, begin, charge
from client.vault.lock import alone
from common.privacy.accounting import Release

DELTA = 1 / 720
PASS = Release(noise=1.405, rate=8 / 72, draws=450)


def found(vault, **budget):
    config = CenterConfig("CHUP", "/data", policy=Policy(privacy=Budget(**budget)))
    return [(one.severity, one.what) for one in check_account(config, vault)]


def test_without_account_and_ceiling_there_is_nothing_to_say(tmp_path):
    assert found(tmp_path) == []


@pytest.mark.parametrize(("ceiling", "severity"), [(20.0, NOTE), (7.5, WARNING)])
def test_what_is_spent_of_the_ceiling_is_told(tmp_path, ceiling, severity):
    charge(tmp_path, Entry("run", "step", 1, "0" * 64, (PASS,)))
    [(is_severe, what)] = found(tmp_path, epsilon=ceiling, delta=DELTA)
    assert is_severe == severity
    assert what == f"Epsilon 7.06 of {ceiling:g} is spent at delta 0.00138889, and 0 replies left without noise."


def test_an_account_that_cannot_be_believed_is_told(tmp_path):
    with alone(tmp_path / FILE):
        begin(tmp_path, lost=True)
    charge(tmp_path, Entry("run", "step", 1, "0" * 64, (PASS,), seeded=True))
    assert [severity for severity, _ in found(tmp_path)] == [WARNING, WARNING]
    (tmp_path / FILE).write_text("{}\n")
    [(severity, what)] = found(tmp_path, epsilon=8.0, delta=DELTA)
    assert severity == ERROR and "cannot be read" in what
