"""What is read of noised sums: the score, the standard deviation that noise alone gives it, or that noise hides it."""

import numpy as np
import pytest

from client.privacy.noised.scores import noised_scores
from client.privacy.streams import Stream
from common.config.load import compose_run
from common.config.privacy import DpSgd
from common.config.rules import broken_rules
from common.config.step import is_validated
from common.config.task import GroundingTask
from common.privacy.accounting import Release, epsilon
from common.privacy.plan import ScorePlan, answers_of, score_plan_of
from common.privacy.scores import NoisedScores, ratio_of, scored_task
from common.privacy.scores.task import ABOVE, BELOW, VARIANCE
from common.tasks import build_task, merge_sums
from tests.helpers.small import small_run

PERFECT = {"predicted": np.ones(2), "truth": np.ones(2), "intersection": np.full(2, 0.75)}  # a Dice of 0.75


def private_step(**options):
    run = small_run(steps=["tumour_ct"], centers=["CHUM"], rounds=3)
    run.compare.learning_rates = [1.0]
    step = run.steps["tumour_ct"]
    step.privacy = DpSgd(**{"epsilon": 8.0, "cohort": 10, "batch": 5, "score_epsilon": 4.0, **options})
    return run, step


def test_the_noise_that_is_said_is_the_noise_that_is_drawn():
    """Over 300 draws the score's spread is that of its own sentence, and its mean the score without noise."""
    _, step = private_step()
    task, ratio = scored_task(step), ratio_of(step.task)
    assert isinstance(task, NoisedScores) and task.primary == "dice"
    plan = ScorePlan(cohort=100, answers=1, noise=0.5)
    codes = [f"P{number}" for number in range(40)]
    stream = Stream(bytes(32))
    found, said = [], []
    for _ in range(300):
        sums = noised_scores(ratio, [PERFECT] * 40, codes, plan=plan, noise=stream)
        found.append(task.metrics(sums)["dice"])
        said.append(task.noise(sums)["dice"])
    assert float(sums[VARIANCE]) == pytest.approx((0.5 * ratio.longest(100)) ** 2)
    assert np.mean(found) == pytest.approx(0.75, abs=0.006)
    assert np.std(found) == pytest.approx(np.mean(said), rel=0.12)


def test_sums_of_centers_add_up_with_their_noise_and_a_score_that_noise_hides_is_none():
    _, step = private_step()
    task = scored_task(step)
    one = {ABOVE: np.array([30.0, 3.0]), BELOW: np.array([40.0, 5.0]), VARIANCE: np.array(9.0)}
    alone = task.metrics(one)
    assert (alone["dice"], alone["dice_GTVp"], alone["dice_GTVn"]) == (0.75, 0.75, None)  # 5 is within two of 3
    pooled = merge_sums([one, one])
    assert task.noise(pooled)["dice_GTVp"] == pytest.approx((18 * (1 + 0.75**2)) ** 0.5 / 80)
    assert task.metrics({**one, ABOVE: np.array([-4.0, 99.0])})["dice_GTVp"] == 0.0
    assert not task.curve_shapes and not task.by_subgroup and task.calibrate(one) == {}


def test_the_answers_of_a_step_together_are_at_the_epsilon_that_it_gives_to_scores():
    _, step = private_step()
    assert answers_of(step) == 2  # before and after: the round that is kept is fixed
    step.selection.keep = "best"
    validated = [number for number in range(4) if is_validated(step, number)]
    assert answers_of(step) == len(validated) + 2 == 6
    plan = score_plan_of(step, "CHUM")
    assert (plan.cohort, plan.answers, plan.release) == (10, 6, Release(plan.noise, 1.0, 1, "scores"))
    assert 3.95 < epsilon([plan.release] * 6, 0.01) <= 4.0
    step.privacy.score_cohort = 7
    assert score_plan_of(step, "CHUM").cohort == 7


def test_without_an_epsilon_for_scores_the_task_is_itself():
    _, step = private_step(score_epsilon=0.0)
    assert type(scored_task(step)) is type(build_task(step.task))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"score_epsilon": -1.0}, "privacy.score_epsilon is -1; it must be at most 1000"),
        ({"score_answers": 1}, "privacy.score_answers is 1, and the step itself asks for 2"),
        ({"score_cohort": -2}, "privacy.score_cohort is -2; it must be 0 or more"),
    ],
)
def test_the_rules_say_what_is_wrong_with_an_option(changed, said):
    run, _ = private_step(**changed)
    assert said in "\n".join(broken_rules(run))


def test_the_rules_refuse_what_no_noise_hides():
    run, step = private_step()
    assert not broken_rules(run)
    step.selection.keep = "best"
    assert not broken_rules(run)
    step.selection.metric = "dsc_agg"
    assert "with noised scores a round is chosen by dice" in "\n".join(broken_rules(run))
    step.selection.metric, step.privacy.score_epsilon = "", 0.0
    assert "or give privacy.score_epsilon" in "\n".join(broken_rules(run))
    run, step = private_step()
    step.subgroups = ["sex"]
    assert "scores by subgroup carry no noise" in "\n".join(broken_rules(run))
    boxes = compose_run(["curriculum=smoke", "privacy=dp_sgd", "privacy.cohort=9", "privacy.score_epsilon=2"])
    (step, *_) = boxes.steps.values()
    step.task = GroundingTask(structures=["GTVp"])
    assert "no score of a grounding task has a bound by patient" in "\n".join(broken_rules(boxes))
