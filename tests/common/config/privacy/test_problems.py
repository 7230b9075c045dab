"""What a step under differential privacy must be: every refusal is one sentence, and all come at once."""

import copy

import pytest

from common.config.adapter import LoraPart
from common.config.load import compose_run, step_from_json, step_to_json
from common.config.methods.continual import LwfMethod, RehearsalMethod
from common.config.methods.drift import DittoMethod, ProximalMethod
from common.config.privacy import DpSgd
from common.config.rules import broken_by_step, broken_rules
from common.config.run import BackboneSpec
from common.config.task import ClassificationTask, PrognosisTask

RUN = compose_run(["curriculum=smoke", "steps.tumour_ct.privacy=dp_sgd", "steps.tumour_ct.privacy.cohort=72"])


def private(**options):
    """The smoke curriculum's first step under DP-SGD, its rounds fixed in advance."""
    run = copy.deepcopy(RUN)
    step = run.steps["tumour_ct"]
    step.privacy = DpSgd(**{"cohort": 72, **options})
    return run, step


def said_of(run):
    return [problem for problem in broken_rules(run) if problem.startswith("Step 'tumour_ct'")]


def test_a_private_step_is_composed_by_a_short_form_and_may_run():
    assert RUN.steps["tumour_ct"].privacy == DpSgd(cohort=72)
    run, step = private()
    assert said_of(run) == []
    assert broken_by_step(step, BackboneSpec(kind="tiny")) == []


def test_privacy_for_every_step_and_none_for_one():
    run = compose_run(["curriculum=smoke", "privacy=dp_sgd", "privacy.cohort=40"])
    assert [step.privacy for step in run.steps.values()] == [DpSgd(cohort=40)] * 2
    run = compose_run(["curriculum=smoke", "privacy=dp_sgd", "steps.tumour_ctpet.privacy=none"])
    assert run.steps["tumour_ct"].privacy == DpSgd() and run.steps["tumour_ctpet"].privacy is None


def test_a_step_without_privacy_keeps_its_text_and_so_its_key():
    plain = step_to_json(compose_run(["curriculum=smoke"]).steps["tumour_ct"])
    assert "privacy" not in plain and "keep" not in plain


def test_a_private_step_crosses_the_network():
    _, step = private(cohorts={"CHUM": 18}, delta=1e-3)
    assert step_from_json(step_to_json(step)) == step


NUMBERS = {
    "privacy.epsilon is 0; it must be above 0": {"epsilon": 0.0},
    "privacy.epsilon is -1; it must be above 0": {"epsilon": -1.0},
    "privacy.clip is 0; it must be positive": {"clip": 0.0},
    "privacy.cohort is 0; set it to a public bound": {"cohort": 0},
    "privacy.batch is 73; it must be 1 to 72, the public bound that privacy.cohort gives": {"batch": 73},
    "privacy.batch is 8; it must be 1 to 5, the public bound that privacy.cohorts.CHUM gives": {"cohorts": {"CHUM": 5}},
    "privacy.batch is 0; it must be 1 to 72": {"batch": 0},
    "privacy.delta is 0.02; it must be above 0 and below 0.01389": {"delta": 0.02},
    "privacy.delta is 0; it must be above 0": {"delta": 0.0},
    "privacy.draws is -1": {"draws": -1},
}


@pytest.mark.parametrize("sentence", NUMBERS)
def test_a_number_out_of_its_public_bounds_is_one_sentence_at_the_coordinator_and_on_site(sentence):
    run, step = private(**NUMBERS[sentence])
    assert any(sentence in problem for problem in said_of(run)), said_of(run)
    on_site = broken_by_step(step, BackboneSpec(kind="tiny"))
    assert any(sentence in problem for problem in on_site) or "draws is -1" in str(on_site)


STEPS = {
    "selection.keep is 'best', which chooses a round by its validation patients": lambda s: setattr(
        s.selection, "keep", "best"
    ),
    "task.loss is 'cox', whose risk sets couple the patients": lambda s: setattr(s, "task", PrognosisTask(loss="cox")),
    "task.alpha is 0.2: DeepHit's ranking couples the patients": lambda s: setattr(s, "task", PrognosisTask()),
    "task.grid is 'quantiles', which reads the patients' event times": lambda s: setattr(
        s, "task", PrognosisTask(loss="hazard", grid="quantiles")
    ),
    "task.imbalance is 'counts', which reads the patients' labels": lambda s: setattr(
        s, "task", ClassificationTask(classes=["yes"], form="binary", target="hpv", imbalance="counts")
    ),
    "part 'within' is DoRA": lambda s: s.adapter.parts.__setitem__("within", LoraPart(dora=True)),
    "method ditto trains a model of each center's own": lambda s: s.methods.append(DittoMethod()),
    "method rehearsal draws its memory of patients": lambda s: s.methods.append(RehearsalMethod()),
    "budget is '20 steps', from which rounds follow by the true numbers": lambda s: setattr(s, "budget", "20 steps"),
}


@pytest.mark.parametrize("sentence", STEPS)
def test_what_cannot_be_private_is_refused_with_the_reason(sentence):
    run, step = private()
    STEPS[sentence](step)
    assert any(sentence in problem for problem in said_of(run)), said_of(run)
    step.privacy = None
    assert not any(sentence in problem for problem in said_of(run))


def test_a_method_that_nobody_has_looked_at_is_refused():
    run, step = private()
    step.methods.append(type("Own", (), {"kind": "own"})())
    from common.config.privacy.problems import privacy_problems

    assert any("method own may compute from patients" in problem for problem in privacy_problems(step, run))


def test_methods_within_the_clipping_or_after_the_noise_may_stay():
    run, step = private()
    step.methods += [ProximalMethod(), LwfMethod()]
    assert not any("under dp_sgd" in problem for problem in said_of(run))


def test_tries_of_learning_rates_are_more_draws_than_the_step_counts():
    run, _ = private()
    run.compare.learning_rates = [0.3, 1.0, 3.0]
    assert any("compare.learning_rates tries 3 rates" in problem for problem in said_of(run))


def test_everything_wrong_is_told_at_once():
    run, step = private(epsilon=0.0, clip=-1.0, delta=0.5, batch=100)
    step.selection.keep, step.budget = "best", "20 cases"
    told = said_of(run)
    assert len(told) >= 6
    step.selection.keep = "second"
    assert any("selection.keep is 'second'; it can be best, last." in problem for problem in said_of(run))
