"""Secure sums from end to end: real centers train, validate and score under masks, with noise, and over a resume."""

from __future__ import annotations

import pytest
from flwr.app import Message

from common.config.privacy import DpSgd
from common.privacy.masking.asked import AGREE, REVEAL
from server.masking import asking
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.masked import give_keys, phase_of
from tests.helpers.small import SIZES, adapters, code_of, federate, small_run, tampering, write_centers

CODES = sorted(SIZES)


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def files(tmp_path, small_root):
    found = write_centers(tmp_path / "centers", small_root, SIZES)
    give_keys(found, tmp_path / "keys")
    return found


def by_hand(centers, *, workers):
    """A grid that hands orders and replies over as they are."""
    return LocalGrid(centers, workers=workers, by_hand=True)


def a_run(*, secure=True, rounds=1, privacy=None):
    run = small_run(steps=["tumour_ct"], rounds=rounds, centers=CODES[:3])
    step = run.steps["tumour_ct"]
    step.federation.guards.norm_factor, step.federation.secure_aggregation = 0.0, secure
    if privacy is not None:
        step.privacy = privacy
    return run


def test_a_secure_run_ends_where_a_plain_one_does_and_tells_sums_alone(tmp_path, files):
    plain, secure = (federate(a_run(secure=s), tmp_path / str(s), files) for s in (False, True))
    states = [leader.bank.get(adapters(leader)["tumour_ct"]) for leader in (plain, secure)]
    start = plain.ledger.events("step_started")[0]["start_hash"]
    assert start == secure.ledger.events("step_started")[0]["start_hash"]
    apart = sum(float((states[0][n] - states[1][n]).double().square().sum()) for n in states[0]) ** 0.5
    assert apart < 1e-4, "the update's norm is above 1"
    rounds = [leader.ledger.events("round_finished")[0] for leader in (plain, secure)]
    assert rounds[1]["validation"]["pooled"] == pytest.approx(rounds[0]["validation"]["pooled"], abs=1e-6)
    assert rounds[1]["secure_sum"]["loss"] == pytest.approx(
        sum(row["loss"] * row["seen"] for row in rounds[0]["train"].values()) / 6, abs=1e-6
    )
    assert all(row["loss"] is None for row in rounds[1]["train"].values()) and not rounds[1]["validation"]["centers"]
    scores = [leader.ledger.events("step_finished")[0]["scores"] for leader in (plain, secure)]
    pooled = [{r["metric"]: r["value"] for r in rows if r["center"] == "pooled"} for rows in scores]
    assert {row["center"] for row in scores[1]} == {"pooled"}
    assert pooled[1]["dsc_agg"] == pytest.approx(pooled[0]["dsc_agg"], abs=0.02)


def test_a_run_killed_between_agreeing_and_opening_ends_with_the_same_adapter(tmp_path, files, monkeypatch):
    whole = federate(a_run(), tmp_path / "whole", files, grid=by_hand)

    def dying(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(asking, "unmasked", dying)  # every share has left, nothing was written down
        with pytest.raises(Killed):
            federate(a_run(), tmp_path / "killed", files)
    resumed = federate(a_run(), tmp_path / "killed", files)
    assert adapters(resumed) == adapters(whole)


def test_a_center_that_falls_silent_after_masking_is_in_the_sum(tmp_path, small_root, files):
    def tamper(sent: Message, reply: Message):
        return None if phase_of(sent) in (AGREE, REVEAL) and code_of(reply) == CODES[3] else reply

    run = a_run()
    run.steps["tumour_ct"].centers = run.steps["tumour_ct"].evaluate_at = CODES
    leader = federate(run, tmp_path / "run", files, grid=tampering(tamper))
    event = leader.ledger.events("round_finished")[0]
    assert event["secure_sum"]["centers"] == 4 and event["failed"] == {CODES[3]: "no_reply"} and not event["void"]


@pytest.mark.slow
def test_noise_and_masks_together(tmp_path, files):
    """Each center adds its whole noise: a sum is as far from one without noise as without masks (draws differ, since an
    order says whether it is masked); losses and counts of patients are told neither under masks nor beside them."""
    privacy = DpSgd(epsilon=8.0, cohort=20, batch=4, draws=1, noise_seed=1)

    def run_with(name, **options):
        leader = federate(a_run(**options), tmp_path / name, files)
        return leader, leader.bank.get(adapters(leader)["tumour_ct"])

    _, bare = run_with("bare", secure=False)
    _, plain = run_with("plain", secure=False, privacy=privacy)
    leader, secure = run_with("secure", secure=True, privacy=privacy)
    far = [
        sum(float((state[name] - bare[name]).double().square().sum()) for name in bare) ** 0.5
        for state in (plain, secure)
    ]
    assert bare.keys() == secure.keys() and far[0] > 0.1 and far[1] == pytest.approx(far[0], rel=0.2)
    assert leader.ledger.events("round_finished")[0]["secure_sum"]["loss"] is None
