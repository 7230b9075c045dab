"""What leaves without noise is a line of the privacy account, where one is kept; a strict hospital lets none out."""

from dataclasses import replace

import numpy as np
import pytest

from client.center.center import Center
from client.policy.policy import Budget, Policy
from client.privacy.spending import FILE, AccountProblem, Entry, charge, read_account
from client.privacy.unnoised import KINDS, check_strict, enter, scored, trained
from client.vault.ending import end_of
from common.errors import PolicyRefusal
from common.privacy.accounting import Release
from common.protocol.messages import Reply
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.actions import ACTIONS, RUN_ID, ask, order_of
from tests.helpers.small import forget, write_centers, write_cohort

WHAT = {"train": "update", "describe": "labels"}  # where a kind is not called as its action is
ENTRY = Entry("run", "private", 1, "0" * 64, (Release(noise=1.0),))
SPENDS = Policy(privacy=Budget(8.0, 0.001))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    LocalGrid({}, workers=0).close()  # Flower's messages need who sends them
    return write_cohort(tmp_path_factory.mktemp("unnoised"), {"CHUP": 12})


@pytest.fixture
def hospital(root, tmp_path):
    forget()
    return write_centers(tmp_path, root, ["CHUP"])["CHUP"]


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_of_a_cohort_with_an_account_is_a_line_of_it(hospital, name):
    vault = Center.open(hospital).vault
    charge(vault, ENTRY)
    assert ask(hospital, name).code == "ok"
    lines, order = read_account(vault).unnoised, order_of(name)
    assert lines[-1].what == WHAT.get(name, name) and lines[-1].what in KINDS
    assert (lines[-1].run, lines[-1].step, lines[-1].subset) == (RUN_ID, order.step.name, order.subset)
    assert [line.what for line in lines[:-1]] == [
        WHAT.get(first, first) for first in filter(None, [ACTIONS[name].first])
    ]
    assert read_account(vault).charges == (ENTRY,), "and the chain holds"


def test_a_cohort_without_budget_and_private_step_keeps_no_account(hospital):
    assert ask(hospital, "scores").code == "ok"
    assert not (Center.open(hospital).vault / FILE).exists()


def test_a_budget_begins_an_account_and_refuses_to_learn_without_noise(root, tmp_path):
    forget()
    hospital = write_centers(tmp_path, root, ["CHUP"], privacy=Budget(8.0, 0.001))["CHUP"]
    for name in ("train", "moments", "describe"):
        assert ask(hospital, name).code == "declined.privacy"
    enter(Center.open(hospital).vault, SPENDS, order_of("scores"), "scores")
    assert [line.what for line in read_account(Center.open(hospital).vault).unnoised] == ["scores"]


def test_an_account_that_was_cut_or_changed_lets_nothing_out(hospital):
    vault = Center.open(hospital).vault
    charge(vault, ENTRY)
    whole, noted = (vault / FILE).read_bytes(), end_of(vault / FILE).read_bytes()
    for broken in (whole[: whole.index(b"\n") + 1], whole.replace(b'"round":1', b'"round":2'), b""):
        (vault / FILE).write_bytes(broken)
        assert ask(hospital, "scores").code == "vault.privacy"
        assert (vault / FILE).read_bytes() == broken and end_of(vault / FILE).read_bytes() == noted
    (vault / FILE).unlink()
    with pytest.raises(AccountProblem, match="nothing was sent"):
        enter(vault, Policy(), order_of("scores"), "scores")


def test_a_line_whose_process_died_before_its_note_is_kept(tmp_path):
    """The note is written after the line: one that knows less than the file is no damage."""
    enter(tmp_path, SPENDS, order_of("scores"), "scores")
    noted = end_of(tmp_path / FILE).read_bytes()
    enter(tmp_path, SPENDS, order_of("scores"), "curves")
    end_of(tmp_path / FILE).write_bytes(noted)
    enter(tmp_path, SPENDS, order_of("scores"), "losses")
    assert [line.what for line in read_account(tmp_path).unnoised] == ["scores", "curves", "losses"]


def test_a_strict_hospital_refuses_by_name():
    with pytest.raises(PolicyRefusal, match=r"policy\.privacy\.strict lets nothing leave without noise") as refusal:
        check_strict(Policy(privacy=Budget(strict=True)), "scores")
    assert refusal.value.code == "declined.noise"
    check_strict(Policy(), "scores")


def test_what_a_reply_tells():
    order = order_of("scores")
    assert scored(order) == "scores" and scored(replace(order, threshold=0.5)) == "curves"
    assert scored(replace(order, subset="validation", threshold=0.5)) == "validation"
    assert trained(order, Reply("CHUP"), is_noised=False) == "update"
    assert trained(order, Reply("CHUP", sums={"fit.loss": np.zeros(())}), is_noised=True) == "losses"
    assert trained(order, Reply("CHUP", counts={"cases": 72}), is_noised=True) == ""  # a public bound
    assert trained(order, Reply("CHUP"), is_noised=True) == ""
