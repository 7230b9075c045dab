"""A federation under DP-SGD, end to end: what its ledger knows, what travelled, and what each center has spent."""

import pytest

from client.center.center import Center
from client.privacy.spending import read_account
from common.config.privacy import DpSgd
from common.privacy.accounting import epsilon
from common.privacy.plan import plan_of
from tests.helpers.small import asked, code_of, federate, small_run, tampering, write_centers

CENTERS = ["CHUM", "MDA"]
ROUNDS = 2


@pytest.fixture(scope="module")
def done(small_root, tmp_path_factory):
    run = small_run(steps=["tumour_ct"], centers=CENTERS, rounds=ROUNDS)
    run.steps["tumour_ct"].privacy = DpSgd(epsilon=8.0, cohort=10, batch=5, draws=2)
    files = write_centers(tmp_path_factory.mktemp("centers"), small_root, CENTERS)
    grid = tampering()
    return run.steps["tumour_ct"], federate(run, tmp_path_factory.mktemp("run"), files, grid=grid), files, grid


def test_rounds_are_fixed_in_advance_and_no_loss_is_told(done):
    leader = done[1]
    rounds = leader.ledger.events("round_finished")
    assert len(rounds) == ROUNDS and not leader.ledger.events("start_validated")
    for event in rounds:
        assert event["validation"]["pooled"] is None and not event["void"]
        told = {code: (row["loss"], row["cases"], row["steps"]) for code, row in event["train"].items()}
        assert told == dict.fromkeys(CENTERS, (None, 10, 2))
    finished = leader.ledger.events("step_finished")[0]
    assert finished["kept_round"] == ROUNDS and finished["key"]


def test_updates_travel_without_sums_and_with_public_counts(done):
    trained = [(sent, reply) for sent, reply in done[3].seen if asked(sent)[0] == "train"]
    assert len(trained) == ROUNDS * len(CENTERS)
    for _, reply in trained:
        status = reply.content.config_records["status"]
        assert (status["cases"], status["batches"], status["seconds"]) == (10, 2, 0.0)
        assert not reply.content.array_records["sums"] and reply.content.array_records["arrays"]
        assert code_of(reply) in CENTERS


def test_each_center_has_spent_what_the_step_says_and_no_more(done):
    step, _, files, _ = done
    for code in CENTERS:
        account = read_account(Center.open(files[code]).vault)
        plan = plan_of(step, code)
        assert [entry.round for entry in account.charges] == [1, 2]
        assert account.releases == (plan.release,) * ROUNDS and account.is_private
        assert 7.9 < epsilon(account.releases, plan.delta) <= 8.0
        assert {line.what for line in account.unnoised} == {"scores"}
