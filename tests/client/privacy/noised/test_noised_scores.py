"""Scores with noise over the real messages: every exit charges before it tells, and what is told says its noise."""

import json
from dataclasses import replace
from functools import partial

import jsonschema
import numpy as np
import pytest

from client.center.center import Center
from client.privacy.spending import read_account
from common.config.privacy import DpSgd
from common.errors import PolicyRefusal
from common.privacy import plan
from common.privacy.accounting import epsilon, noise_for
from common.privacy.plan import plan_of, score_plan_of
from common.privacy.scores.task import ABOVE, BELOW, VARIANCE
from common.protocol.comparing import comparing
from server.evaluation.matrix import Column
from server.learning.selection import best_round
from server.report.reading.record import read_run
from server.report.results import SCHEMA, results
from server.report.story import warnings
from server.report.verdict.lines import score_text
from tests.helpers.small import asked, federate, forget, small_run, tampering, write_centers

CENTERS = ["CHUM", "MDA"]
ROUNDS = 2
PRIVACY = {"epsilon": 60.0, "delta": 0.01}


def scored_run(**options):
    run = small_run(steps=["tumour_ct"], centers=CENTERS, rounds=ROUNDS)
    step = run.steps["tumour_ct"]
    step.privacy = DpSgd(**{"epsilon": 8.0, "cohort": 10, "batch": 5, "draws": 1, "score_epsilon": 20.0, **options})
    step.selection.keep = "best"
    return run


@pytest.fixture(scope="module")
def done(small_root, tmp_path_factory):
    """At hospitals that let nothing out without noise."""
    files = write_centers(tmp_path_factory.mktemp("centers"), small_root, CENTERS, privacy={**PRIVACY, "strict": True})
    grid = tampering()
    with pytest.MonkeyPatch.context() as patch:  # a tenth of the time, and a little more noise
        patch.setattr(plan, "noise_for", partial(noise_for, accountant="rdp"))
        yield federate(scored_run(), tmp_path_factory.mktemp("run"), files, grid=grid), files, grid


def answers_in(leader):
    """The start's and the rounds' validation, and test patients before and after; where the start is kept, as noise may
    have it, after is before."""
    return 1 + ROUNDS + 1 + (leader.ledger.events("step_finished")[0]["kept_round"] > 0)


def test_every_answer_with_scores_is_two_noised_sums_and_public_numbers(done):
    leader, _, grid = done
    scored = [(sent, reply) for sent, reply in grid.seen if asked(sent)[0] == "evaluate"]
    assert len(scored) == len(CENTERS) * answers_in(leader)
    for _, reply in scored:
        status = reply.content.config_records["status"]
        assert set(reply.content.array_records["sums"]) == {ABOVE, BELOW, VARIANCE}
        assert (status["cases"], status["seconds"], "suppressed" in status) == (10, 0.0, False)
    assert not leader.ledger.events("reply_rejected")


def test_each_center_was_charged_for_each_answer_and_released_nothing_without_noise(done):
    leader, files, _ = done
    (step,) = leader.run.steps.values()
    for code in CENTERS:
        account = read_account(Center.open(files[code]).vault)
        own = score_plan_of(step, code)
        scores = [release for release in account.releases if release.kind == "scores"]
        assert scores == [own.release] * answers_in(leader) and own.answers == 1 + ROUNDS + 2
        assert 17 < epsilon([own.release] * own.answers, 0.01) <= 20.0
        assert [r for r in account.releases if r.kind == "train"] == [plan_of(step, code).release] * ROUNDS
        assert not account.unnoised and account.is_private


def test_a_round_is_chosen_by_noised_scores_and_rows_say_their_noise(done):
    leader, _, _ = done
    start, rounds = leader.ledger.events("start_validated"), leader.ledger.events("round_finished")
    assert [event["validation"]["metric"] for event in (*start, *rounds)] == ["dice"] * 3
    (finished,) = leader.ledger.events("step_finished")
    assert finished["kept_round"] == best_round([*start, *rounds])["round"]
    assert finished["primary"] == {"tumour_ct": "dice"} and finished["curves"] == {}
    rows = [row for row in finished["scores"] if row["metric"] == "dice"]
    assert {row["center"] for row in rows} == {*CENTERS, "pooled"}
    for row in rows:
        assert row["n"] is None and (row["value"] is None) == ("noise" not in row)


def test_report_and_results_say_the_noise(done):
    leader, _, _ = done
    events = leader.ledger.events()
    rows = [{**row, "value": 0.5, "noise": 0.125} for row in leader.ledger.events("step_finished")[0]["scores"]]
    run = replace(read_run(events), rows=rows)
    (said,) = [text for text in warnings(run) if "carry noise" in text]
    assert "pooled ones have a standard deviation of up to 0.125 by noise alone" in said
    column = Column("tumour_ct", "tumour_ct", "dice", "CT")
    assert score_text(column, rows[0]) == "Dice 0.500 (± 0.125 by noise)"
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(results(events) | {"scores": [{"arm": "federated"} | row for row in rows]}, schema)


def test_the_same_question_is_free_and_one_more_is_refused(done):
    leader, files, _ = done
    (step,) = leader.run.steps.values()
    forget()
    center = Center.open(files["MDA"])
    (finished,) = leader.ledger.events("step_finished")
    order = replace(
        leader.order(step), subset="test", state=leader.bank.get(finished["key"]), since=finished["kept_round"]
    )
    before = read_account(center.vault)
    again = center.evaluate(order)
    assert read_account(center.vault) == before and np.isfinite(again.sums[ABOVE]).all()
    assert np.array_equal(again.sums[ABOVE], center.evaluate(order).sums[ABOVE])
    others = [{name: tensor + 0.01 * n for name, tensor in order.state.items()} for n in (1, 2)]
    with pytest.raises(PolicyRefusal, match=r"noise for 5 answers of its kind \(scores\)") as refused:
        for other in others:  # one may be left
            center.evaluate(replace(order, state=other))
    assert refused.value.code == "declined.questions"


def test_another_state_for_a_private_round_is_refused_once_the_steps_rounds_are_spent(done):
    """Each would be charged; a step of two rounds has noise for two."""
    leader, files, _ = done
    (step,) = leader.run.steps.values()
    center = Center.open(files["MDA"])
    (finished,) = leader.ledger.events("step_finished")
    other = {name: tensor + 0.01 for name, tensor in leader.bank.get(finished["key"]).items()}
    before = read_account(center.vault)
    with pytest.raises(PolicyRefusal, match=r"noise for 2 answers of its kind \(train\), and 2 others") as refused:
        center.train(replace(leader.order(step), round=2, state=other))
    assert refused.value.code == "declined.questions" and read_account(center.vault) == before


def test_the_whole_step_with_its_scores_must_fit_before_it_begins(done, small_root, tmp_path):
    leader, _, _ = done
    (step,) = leader.run.steps.values()
    files = write_centers(tmp_path, small_root, ["MDA"], privacy={"epsilon": 12.0, "delta": 0.01})
    center = Center.open(files["MDA"])
    described = center.describe(leader.order(step))
    assert described.code == "declined.budget"  # 8 for training alone would fit
    assert not read_account(center.vault).charges


def test_without_a_ceiling_scores_with_noise_stay_within_what_is_no_promise_too_weak(done, small_root, tmp_path):
    """Where minimums hold, noise stands in for them up to epsilon 10 at delta 0.001, of scores alone."""
    leader, _, _ = done
    (step,) = leader.run.steps.values()
    step = replace(step, privacy=replace(step.privacy, score_epsilon=200.0))
    files = write_centers(tmp_path, small_root, ["MDA"], minimum_cell=2)
    center = Center.open(files["MDA"])
    (finished,) = leader.ledger.events("step_finished")
    order = replace(leader.order(step), step=step, subset="validation", state=leader.bank.get(finished["key"]))
    with pytest.raises(PolicyRefusal, match="it may spend 10 over every step") as refused:
        center.evaluate(order)
    assert refused.value.code == "declined.budget" and not read_account(center.vault).charges
    described = center.describe(replace(leader.order(step), step=step))
    assert described.code == "declined.budget", "and so it is not begun"


def test_paired_scores_carry_no_noise_and_are_refused(done):
    leader, files, _ = done
    (step,) = leader.run.steps.values()
    center = Center.open(files["MDA"])
    order = leader.order(step)
    order.state = center.model(order)[0].state()
    asked = comparing(replace(order, subset="test"), step, state=order.state, known={})
    with pytest.raises(PolicyRefusal, match="leave with noise only, and paired ones carry none"):
        center.evaluate(asked)
