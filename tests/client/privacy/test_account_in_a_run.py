"""The account in a whole run of this process: a ceiling that one run fits, a restart, and a hospital that is strict."""

from dataclasses import replace

import pytest

from client.center.center import Center
from client.policy.policy import Budget, Ceiling
from client.privacy.dp_sgd import check_step
from client.privacy.spending import Entry, charge, read_account
from common.config.privacy import DpSgd
from common.errors import FedgraftError, PolicyRefusal
from common.privacy.accounting import epsilon
from common.privacy.plan import plan_of
from common.protocol.messages import Order
from tests.helpers.small import adapters, federate, small_run, write_centers, write_cohort

CENTERS = ["CHUM", "CHUP"]
DELTA = 0.001
SPEC = DpSgd(epsilon=8.0, delta=DELTA, cohort=12, batch=4, draws=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("account"), {"CHUM": 12, "CHUP": 12})


def run_of(rounds):
    run = small_run(centers=CENTERS, rounds=rounds, steps=["tumour_ct"])
    step = run.steps["tumour_ct"]
    step.privacy, step.selection.keep = SPEC, "last"
    return run


def account_of(file):
    return read_account(Center.open(file).vault)


def test_no_step_is_begun_that_would_pass_the_ceiling_whichever_run_asks(root, tmp_path):
    release = plan_of(run_of(2).steps["tumour_ct"], "CHUM").release
    two, four = (epsilon([release] * rounds, DELTA) for rounds in (2, 4))
    files = write_centers(tmp_path, root, CENTERS, privacy=Budget((two + four) / 2, DELTA))
    federate(run_of(2), tmp_path / "run", files)
    with pytest.raises(FedgraftError, match=r"declined\.budget"):
        federate(run_of(2), tmp_path / "another", files)
    for file in files.values():
        assert [entry.round for entry in account_of(file).charges] == [1, 2]
        assert epsilon(account_of(file).releases, DELTA) == two


def test_a_step_that_was_begun_is_finished_after_a_restart_and_counts_its_rounds_once(tmp_path):
    run = run_of(2)
    release = plan_of(run.steps["tumour_ct"], "CHUM").release
    ceiling = Ceiling(epsilon([release] * 2, DELTA) + 0.01, DELTA)
    order = Order(run.steps["tumour_ct"], run.seed, 0, run.backbone, "base", run.data.split, run="ab12")
    charge(tmp_path, Entry("ab12", "tumour_ct", 1, "0" * 32, (release,)), ceiling)
    check_step(order, code="CHUM", vault=tmp_path, ceiling=ceiling)
    for other in (replace(order, run="cd34"), replace(order, step=replace(order.step, rounds=3))):
        with pytest.raises(PolicyRefusal, match=r"would bring what this cohort has spent") as refusal:
            check_step(other, code="CHUM", vault=tmp_path, ceiling=ceiling)
        assert refusal.value.code == "declined.budget"
    check_step(replace(order, run="cd34"), code="CHUM", vault=tmp_path, ceiling=None)


def test_a_strict_hospital_tells_public_bounds_and_noised_updates_alone(root, tmp_path):
    files = write_centers(tmp_path, root, CENTERS, privacy=Budget(20.0, DELTA, strict=True))
    leader = federate(run_of(2), tmp_path / "run", files)
    assert list(adapters(leader)) == ["tumour_ct"]
    [started] = leader.ledger.events("step_started")
    assert started["counts"] == {code: {"train": 12, "validation": 0, "test": 0} for code in CENTERS}
    for file in files.values():
        account = account_of(file)
        assert account.unnoised == () and len(account.charges) == 2 and account.is_private


def test_scores_of_a_private_step_are_lines_of_the_account(root, tmp_path):
    files = write_centers(tmp_path, root, CENTERS, privacy=Budget(20.0, DELTA))
    federate(run_of(1), tmp_path / "run", files)
    for file in files.values():
        told = [one.what for one in account_of(file).unnoised]
        assert "counts" in told and "scores" in told and "update" not in told and "losses" not in told
