"""An exact fit on noised sums over the real messages: what leaves, what it costs, and what no center answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.center.center import Center
from client.privacy.spending import read_account
from common.config.load import compose_run
from common.config.privacy import NoisedSums
from common.config.rules import broken_rules
from common.errors import PolicyRefusal
from common.exact.noised import beyond, noise_scales, noised_objective, spectral, step_from
from common.exact.objectives import GRADIENT, HESSIAN
from common.exact.step import BETA, MEAN, SCALE
from common.model.readout import LinearReadout
from common.privacy import plan
from common.privacy.accounting import Release, epsilon
from common.privacy.plan import plan_of
from common.protocol.wire import pack_reply, unpack_reply
from server.centers.quarantine import strikes
from server.learning.withdraw import withdraw
from tests.helpers.small import VIEW, adapters, asked, code_of, federate, forget, tampering, write_centers

CENTERS = ["CHUM", "MDA"]
ROUNDS = 3


def noised_run(*, objective="", rounds=ROUNDS, **options):
    """HPV from frozen features and records, on noised sums."""
    run = compose_run(["curriculum=exact", "backbone=tiny", "name=small"])
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps = {"hpv_exact": run.steps["hpv_exact"]}
    (step,) = run.steps.values()
    step.view, step.centers, step.evaluate_at, step.rounds = VIEW, list(CENTERS), list(CENTERS), rounds
    step.federation.objective = objective
    step.federation.penalty = 1.0
    step.privacy = NoisedSums(**{"epsilon": 8.0, "cohort": 10, **options})
    return run


@pytest.fixture(scope="module")
def done(small_root, tmp_path_factory):
    files = write_centers(tmp_path_factory.mktemp("centers"), small_root, CENTERS)
    grid = tampering()
    return federate(noised_run(), tmp_path_factory.mktemp("run"), files, grid=grid), files, grid


def order_at(leader, center, *, round=0, beta=None):
    (step,) = leader.run.steps.values()
    forget()
    order = replace(leader.order(step), round=round, state=center.model(leader.order(step))[0].state())
    if round == 0:
        return order
    columns = len(order.state["linear/mean"])
    known = {MEAN: np.zeros(columns), SCALE: np.ones(columns), BETA: beta}
    return replace(order, known=known)


def test_the_rules_say_what_noised_sums_are_for():
    assert not broken_rules(noised_run())
    for wrong, said in (
        (noised_run(objective="ridge"), "a ridge on noised sums is one question; set rounds to 1"),
        (noised_run(clip=0.0), "privacy.clip is 0; it must be above 0 and at most 100"),
        (noised_run(cohort=0), "privacy.cohort is 0; set it to a public bound"),
    ):
        assert said in "\n".join(broken_rules(wrong))
    chosen = noised_run()
    chosen.steps["hpv_exact"].federation.penalties = [1.0, 10.0]
    assert "chosen among by validation patients, without noise" in "\n".join(broken_rules(chosen))
    trained = compose_run(["curriculum=smoke", "privacy=noised_sums", "privacy.cohort=9"])
    assert "privacy is noised_sums, which an exact fit has, and federation is mean" in "\n".join(broken_rules(trained))


def test_as_many_questions_as_rounds_and_what_the_step_says_is_spent(done):
    leader, files, grid = done
    (step,) = leader.run.steps.values()
    sums = [(sent, reply) for sent, reply in grid.seen if asked(sent)[0] == "query.sums"]
    assert sorted({asked(sent)[1] for sent, _ in sums}) == [0, 1, 2] and len(sums) == ROUNDS * len(CENTERS)
    for _, reply in sums:
        status = reply.content.config_records["status"]
        assert (status["cases"], status["seconds"]) == (10, 0.0)  # the public bound, and no time
    for code in CENTERS:
        account = read_account(Center.open(files[code]).vault)
        own = plan_of(step, code)
        assert account.releases == (Release(own.noise, 1.0, 1, "sums"),) * ROUNDS and account.is_private
        assert 7.9 < epsilon(account.releases, own.delta) <= 8.0
        assert {line.what for line in account.unnoised}.isdisjoint({"gram", "moments", "newton", "update"})
    assert leader.ledger.events("noised_fit")[0]["questions"] == ROUNDS
    assert not leader.ledger.events("reply_rejected") and adapters(leader)["hpv_exact"]


def test_the_fit_is_a_function_of_what_left(done):
    """From the replies alone, as they traveled, the same weights follow."""
    leader, _, _ = done
    (step,) = leader.run.steps.values()
    state = leader.bank.get(leader.bank.head("hpv_exact"))
    assert torch.equal(state["linear/mean"], torch.zeros_like(state["linear/mean"]))
    assert torch.equal(state["linear/scale"], torch.ones_like(state["linear/scale"]))
    assert state["linear/weight"].abs().sum() > 0
    scales = [noise_scales(noised_objective(step), plan_of(step, code), round=0)[HESSIAN] for code in CENTERS]
    size = state["linear/weight"].shape[1] + 1
    said = leader.ledger.events("noised_fit")[0]["noise"]
    assert said == pytest.approx(spectral(scales, size), rel=1e-3)


def test_the_same_question_is_free_and_has_the_same_answer_and_one_more_is_refused(done):
    leader, files, _ = done
    center = Center.open(files["MDA"])
    before = len(read_account(center.vault).charges)
    first, again = (center.sums(order_at(leader, center)) for _ in range(2))
    assert len(read_account(center.vault).charges) == before == ROUNDS
    assert all(np.array_equal(first.sums[name], again.sums[name]) for name in (GRADIENT, HESSIAN))
    hessian = first.sums[HESSIAN]
    assert np.array_equal(hessian, np.swapaxes(hessian, 1, 2))
    other = np.full((1, hessian.shape[1]), 0.1)
    with pytest.raises(
        PolicyRefusal, match=r"noise for 3 answers of its kind \(sums\), and 3 others were given"
    ) as refused:
        center.sums(order_at(leader, center, round=1, beta=other))
    assert refused.value.code == "declined.questions"
    assert len(read_account(center.vault).charges) == ROUNDS


@pytest.mark.parametrize("round", [-1, ROUNDS])
def test_a_question_beyond_the_rounds_is_none(done, round):
    leader, files, _ = done
    center = Center.open(files["MDA"])
    with pytest.raises(PolicyRefusal, match="has 3 questions, from 0"):
        center.sums(order_at(leader, center, round=round, beta=np.zeros((1, 1))))


@pytest.mark.parametrize("beta", [np.zeros((1, 2)), np.nan])
def test_a_point_that_is_none_is_refused_before_anything_is_charged(done, beta):
    leader, files, _ = done
    center = Center.open(files["MDA"])
    order = order_at(leader, center)
    columns = len(center.model(order)[0].exact_layout.names) + 1
    point = np.full((1, columns), beta) if np.isscalar(beta) else beta
    with pytest.raises(PolicyRefusal, match="finite numbers"):
        center.sums(order_at(leader, center, round=1, beta=point))


def test_a_ceiling_is_kept_before_the_first_question(done, small_root, tmp_path):
    leader, _, _ = done
    files = write_centers(tmp_path, small_root, ["MDA"], privacy={"epsilon": 4.0, "delta": 0.01})
    center = Center.open(files["MDA"])
    described = center.describe(order_at(leader, center))
    assert described.code == "declined.budget" and not read_account(center.vault).charges


def test_a_strict_hospital_answers_noised_sums_and_nothing_else(done, small_root, tmp_path):
    leader, _, _ = done
    files = write_centers(tmp_path, small_root, ["MDA"], privacy={"epsilon": 9.0, "delta": 0.01, "strict": True})
    center = Center.open(files["MDA"])
    order = order_at(leader, center)
    assert set(center.sums(order).sums) == {GRADIENT, HESSIAN}
    with pytest.raises(PolicyRefusal, match="strict lets nothing leave without noise"):
        center.evaluate(replace(order, subset="test"))
    account = read_account(center.vault)
    assert len(account.charges) == 1 and not account.unnoised


def test_a_center_that_stops_leaves_a_fit_that_goes_on_and_asks_nobody_anything_new(done, small_root, tmp_path):
    files = write_centers(tmp_path / "centers", small_root, CENTERS)

    def silent(sent, reply):
        is_late = asked(sent)[0] == "query.sums" and asked(sent)[1] >= 1
        return None if is_late and code_of(reply) == "MDA" else reply

    leader = federate(noised_run(), tmp_path / "run", files, grid=tampering(silent))
    (lost,) = leader.ledger.events("newton_lost")
    assert (list(lost["centers"]), lost["round"]) == (["MDA"], 1)
    assert leader.ledger.events("noised_fit")[0]["centers"] == ["CHUM"] and adapters(leader)["hpv_exact"]
    charged = read_account(Center.open(files["CHUM"]).vault).charges
    assert [entry.round for entry in charged] == [0, 1, 2]


@pytest.mark.parametrize(
    "lie", [lambda value: value * 0 - 1e4 * np.eye(value.shape[-1]), lambda value: value * 0 + 1e9]
)
def test_sums_longer_than_patients_and_noise_make_them_are_a_strike(small_root, tmp_path, lie):
    """An indefinite Hessian would be raised to noise's floor, and a long gradient be anybody's wish for the weights."""
    files = write_centers(tmp_path / "centers", small_root, CENTERS)

    def lying(sent, reply):
        if asked(sent) == ("query.sums", 0) and code_of(reply) == "MDA":
            own = unpack_reply(reply.content)
            reply.content = pack_reply(replace(own, sums=own.sums | {HESSIAN: lie(own.sums[HESSIAN])}))
        return reply

    leader = federate(noised_run(rounds=1), tmp_path / "run", files, grid=tampering(lying))
    [event] = leader.ledger.events("reply_rejected")
    assert (event["center"], event["code"]) == ("MDA", "impossible") and strikes(leader.ledger) == {"MDA": 1}
    assert event["told"] == "newton.hessian is longer than 10 patients and their noise make it"
    assert leader.ledger.events("noised_fit")[0]["centers"] == ["CHUM"]


def test_noise_itself_is_never_impossible():
    """A thousand answers of nobody, and one patient at the bound."""
    (step,) = noised_run().steps.values()
    objective, own = noised_objective(step), plan.Plan(10, 10, 1, 2.0, 0.01, 1.3, "sums")
    drawn, shapes = np.random.default_rng(0), {GRADIENT: (1, 6), HESSIAN: (1, 6, 6)}
    scales = noise_scales(objective, own, round=0)
    for _ in range(1000):
        sums = {name: scales[name] * drawn.normal(size=shape) for name, shape in shapes.items()}
        assert not beyond(objective, own, sums, round=0, patients=1)
    far = {GRADIENT: np.full((1, 6), 1e3), HESSIAN: np.zeros((1, 6, 6))}
    assert beyond(objective, own, far, round=0, patients=10).startswith("newton.gradient is longer than 10 patients")
    assert beyond(objective, own, far | {GRADIENT: np.full((1, 6), np.nan)}, round=0, patients=10)


def test_without_noise_the_federated_fit_is_the_pooled_one(small_root, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "noise_for", lambda *_, **__: 1e-12)
    files = write_centers(tmp_path / "centers", small_root, CENTERS)
    run = noised_run(rounds=4)
    (step,) = run.steps.values()
    leader = federate(run, tmp_path / "run", files)
    found = leader.bank.get(leader.bank.head("hpv_exact"))
    x, target = pooled_rows(leader, files)
    objective = noised_objective(step)
    beta = np.zeros(objective.shape(x.shape[1]))
    weights = objective.penalised(x.shape[1])
    hessian = objective.sums(x, target, beta)[HESSIAN]
    for _ in range(4):
        sums = {GRADIENT: objective.sums(x, target, beta)[GRADIENT], HESSIAN: hessian}
        beta = step_from(beta, sums, penalty=weights, floor=0.0)
    weight, bias = objective.split(beta, x.shape[1])
    np.testing.assert_allclose(found["linear/weight"].numpy(), weight, atol=1e-7)
    np.testing.assert_allclose(found["linear/bias"].numpy(), bias, atol=1e-7)


def pooled_rows(leader, files):
    from client.training.observation import linear_rows

    (step,) = leader.run.steps.values()
    parts = []
    for code in CENTERS:
        center = Center.open(files[code])
        order = leader.order(step)
        model, _ = center.model(order)
        assert isinstance(model._readout, LinearReadout) and model._readout.longest == step.privacy.clip
        rows = linear_rows(order, model, center.case_set(order, "train", model))
        x = np.concatenate([rows.values, rows.flags], axis=1)
        assert np.linalg.norm(x, axis=1).max() <= step.privacy.clip * (1 + 1e-9)
        parts.append((x, rows.target))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def test_a_center_that_leaves_cannot_be_subtracted(done):
    leader, _, _ = done
    (left,) = withdraw(leader.folder.path, "MDA")
    assert "trained by noised answers, which are not asked again" in left.text
