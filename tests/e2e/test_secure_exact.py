"""Exact fits on secure sums, over real messages: the plain fit's numbers, and nobody's own sums anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from common.config.load import compose_run
from common.config.privacy import NoisedSums
from common.config.rules import broken_rules
from common.errors import RoundFailed
from common.exact.objectives import GRADIENT
from common.privacy.masking.asked import KEYS, MASK, REVEAL
from server.learning.withdraw import withdraw
from server.report.reading.record import read_run
from server.report.story import warnings
from tests.helpers.masked import give_keys, phase_of
from tests.helpers.small import SIZES, VIEW, adapters, asked, code_of, federate, tampering, write_centers

CODES = sorted(SIZES)


@pytest.fixture
def files(tmp_path, small_root):
    found = write_centers(tmp_path / "centers", small_root, SIZES)
    give_keys(found, tmp_path / "keys")
    return found


def exact_run(*, secure=True, objective="", rounds=30, privacy=None):
    run = compose_run(["curriculum=exact", "backbone=tiny", "name=small"])
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps = {"hpv_exact": run.steps["hpv_exact"]}
    (step,) = run.steps.values()
    step.view, step.centers, step.evaluate_at, step.rounds = VIEW, list(CODES), CODES[:3], rounds
    step.federation.objective, step.federation.secure_aggregation = objective, secure
    step.federation.penalties, step.privacy = [], privacy
    return run


def weights(leader):
    state = leader.bank.get(adapters(leader)["hpv_exact"])
    return {name: tensor.numpy() for name, tensor in state.items()}


def sums_asked(grid):
    return [(sent, reply) for sent, reply in grid.seen if asked(sent)[0] == "query.sums"]


def like_the_plain_ones(secure, plain):
    """To 1e-9 of the largest weight: sums travel in 2^-72, and float64 is what rounds them."""
    for name, value in weights(plain).items():
        np.testing.assert_allclose(weights(secure)[name], value, rtol=0, atol=1e-9 * max(1, np.abs(value).max()))


def test_a_secure_fit_stops_without_a_center_goes_on_with_it_and_has_the_plain_ones_weights(tmp_path, files):
    assert not broken_rules(exact_run())

    def silent(sent, reply):
        kind, number = asked(sent)
        return None if kind == "query.sums" and number == 2 and code_of(reply) == "MDA" else reply

    grid = tampering(silent)
    with pytest.raises(RoundFailed, match=r"Question 2 .* not answered by all \(MDA: \w+\).* nothing was opened"):
        federate(exact_run(), tmp_path / "secure", files, grid=grid)
    opened = [asked(sent)[1] for sent, _ in grid.seen if phase_of(sent) == REVEAL and is_of_the_fit(sent)]
    assert set(opened) == {0, 1}
    secure = federate(exact_run(), tmp_path / "secure", files)
    like_the_plain_ones(secure, federate(exact_run(secure=False), tmp_path / "plain", files))
    told = secure.ledger.events("newton_round")
    assert all(event["secure_sum"]["of"] == CODES for event in told if not event["failed"])
    (said,) = [text for text in warnings(read_run(secure.ledger.events())) if "fitted exactly" in text]
    assert "on secure sums of 4 centers; off because of it: plausibility of single centers' sums" in said
    (left,) = withdraw(secure.folder.path, CODES[0])
    assert "secure sums, whose difference to others without it would be its own" in left.text


def is_of_the_fit(sent):
    return not sent.content.config_records["config"]["subset"]


def test_ridge_travels_under_masks_and_leaves_nobodys_sums_anywhere(tmp_path, files):
    grid = tampering()
    secure = federate(exact_run(objective="ridge", rounds=1), tmp_path / "secure", files, grid=grid)
    like_the_plain_ones(secure, federate(exact_run(objective="ridge", rounds=1, secure=False), tmp_path / "p", files))
    answers = sums_asked(grid)
    assert len(answers) == len(CODES)
    for sent, reply in answers:
        assert phase_of(sent) == MASK and not reply.content.array_records["sums"]
        assert "cases" not in reply.content.config_records["status"]
    assert not {path.stem for path in (tmp_path / "secure" / "sums").rglob("*.safetensors")} & set(CODES)


def test_who_is_missing_at_the_first_question_is_out_and_nobody_answers_it_over_others_again(tmp_path, files):
    """What the others' sums are, beside what they and the one together had, would be the one's."""

    def late(sent, reply):
        return None if phase_of(sent) == KEYS and is_of_the_fit(sent) and code_of(reply) == "HMR" else reply

    first = federate(exact_run(objective="ridge", rounds=1), tmp_path / "first", files, grid=tampering(late))
    (lost,) = first.ledger.events("newton_lost")
    assert set(lost["centers"]) == {"HMR"} and adapters(first)["hpv_exact"]
    again = exact_run(objective="ridge", rounds=1)
    again.seed += 1  # another run, of the same columns
    with pytest.raises(RoundFailed, match="centers are left after agreeing"):
        federate(again, tmp_path / "second", files)


def test_noised_sums_are_summed_securely_too(tmp_path, files):
    grid = tampering()
    leader = federate(exact_run(rounds=1, privacy=NoisedSums(cohort=10)), tmp_path / "run", files, grid=grid)
    assert len(sums_asked(grid)) == len(CODES) and adapters(leader)["hpv_exact"]
    assert all(GRADIENT not in reply.content.array_records["sums"] for _, reply in sums_asked(grid))
    assert leader.ledger.events("noised_fit")[0]["centers"] == CODES
