"""A hospital's floor holds whatever the server asks, and a refusal travels as a code."""

import copy
from dataclasses import replace
from datetime import datetime

import pytest

from client.policy import Policy, check_cases, check_order
from client.policy import test_folds as folds_of
from client.policy.orders import SUMS as LEARNS_FROM_SUMS
from client.policy.orders import TRAIN, scores_asked, sums_asked
from client.policy.policy import SUMS, Budget, Ceiling, ceiling_of, demands_privacy
from common.config.adapter import DecoderPart, FullPart, LoraPart, PatchEmbedPart, ResolutionPart
from common.config.federation import FedDynFederation, NewtonFederation, ScaffoldFederation
from common.config.privacy import DpSgd, NoisedSums
from common.config.run import BackboneSpec, Split
from common.errors import ConfigError, PolicyRefusal
from common.protocol.messages import Order
from common.tasks.cuts import GRID
from tests.helpers.small import small_run


def order(number=1):
    return Order(small_run(steps=["tumour_ct"]).steps["tumour_ct"], 1, number, BackboneSpec(), "base", Split())


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy(tasks=["prognosis", "classification"]), "declined.task"),
        (Policy(bases=["other"]), "declined.base"),
        (Policy(maximum_rounds=4), "declined.rounds"),
        (Policy(test_folds=[1, 2]), "declined.split"),
        (Policy(maximum_rounds=1), "declined.rounds"),
        (Policy(parts=["lora", "mlp"]), "declined.part"),
        (Policy(require_privacy=True), "declined.privacy"),
        (Policy(privacy=Budget(8.0, 0.001)), "declined.privacy"),
        (Policy(privacy=Budget(strict=True)), "declined.privacy"),
        (Policy(require_secure_aggregation=True), "declined.secure_aggregation"),
        (Policy(quiet_hours=["00:00-23:59", "23:59-00:00"]), "declined.quiet_hours"),
    ],
)
def test_an_order_below_the_floor_is_declined(policy, code):
    with pytest.raises(PolicyRefusal) as refusal:
        check_order(policy, order(5))
    assert refusal.value.code == code


def test_an_open_policy_and_a_matching_one_let_an_order_pass():
    for policy in (Policy(), Policy(tasks=["segmentation"], bases=["base"], maximum_rounds=5)):
        check_order(policy, order(5))


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(8.0, None), (None, 0.001), (0.0, 0.001), (-1.0, 0.001), (float("inf"), 0.001), (8.0, 0.0), (8.0, 1.0)],
)
def test_a_ceiling_that_is_none_is_a_sentence(epsilon, delta):
    with pytest.raises(ConfigError, match=r"policy\.privacy has epsilon .* write both, a positive epsilon such as 8"):
        ceiling_of(Policy(privacy=Budget(epsilon, delta)))


def test_a_ceiling_demands_privacy_of_every_step_that_learns():
    assert ceiling_of(Policy()) is None and not demands_privacy(Policy())
    spends = Policy(privacy=Budget(8.0, 0.001))
    assert ceiling_of(spends) == Ceiling(8.0, 0.001) and demands_privacy(spends)
    only_scored = order()
    only_scored.step.rounds = 0
    check_order(spends, only_scored)


@pytest.mark.parametrize(
    ("cases", "minimum", "is_declined"), [(0, 0, True), (4, 5, True), (5, 5, False), (1, 1, False)]
)
def test_too_few_cases_do_not_train(cases, minimum, is_declined):
    if is_declined:
        with pytest.raises(PolicyRefusal, match=f"{cases} usable training cases"):
            check_cases(Policy(minimum_cases=minimum), cases)
    else:
        check_cases(Policy(minimum_cases=minimum), cases)


@pytest.mark.parametrize(
    ("span", "clock", "is_quiet"),
    [
        ("08:00-18:00", "07:59", False),
        ("08:00-18:00", "08:00", True),
        ("08:00-18:00", "18:00", False),
        ("22:30-06:00", "23:00", True),
        ("22:30-06:00", "05:59", True),
        ("22:30-06:00", "12:00", False),
    ],
)
def test_quiet_hours_hold_also_over_midnight(span, clock, is_quiet):
    policy, now = Policy(quiet_hours=[span]), datetime.fromisoformat(f"2026-03-01T{clock}")
    if is_quiet:
        with pytest.raises(PolicyRefusal, match=f"It is {clock}"):
            check_order(policy, order(), now=now)
    else:
        check_order(policy, order(), now=now)


@pytest.mark.parametrize("text", ["8-18", "08:00", "25:00-26:00", ""])
def test_quiet_hours_that_are_no_times_are_named(text):
    with pytest.raises(ConfigError, match=f"quiet_hours holds '{text}'"):
        check_order(Policy(quiet_hours=[text]), order())


def changed(number=1, **options):
    """The order with options of its step changed, by path: ``training__batch=1``."""
    asked = copy.deepcopy(order(number))
    for path, value in options.items():
        *owners, name = path.split("__")
        owner = asked.step
        for one in owners:
            owner = getattr(owner, one)
        setattr(owner, name, value)
    return asked


def with_part(part):
    return changed(adapter__parts={"decoder": DecoderPart(), "more": part})


@pytest.mark.parametrize(
    ("policy", "asked", "code"),
    [
        (Policy(), with_part(FullPart()), "declined.part"),
        (Policy(), with_part(PatchEmbedPart()), "declined.part"),
        (Policy(), with_part(ResolutionPart()), "declined.part"),
        (Policy(parts=["decoder", "patch_embed"]), with_part(PatchEmbedPart()), None),
        (Policy(parts=["all"]), with_part(FullPart()), None),
        (Policy(), with_part(LoraPart()), None),
        (Policy(), changed(federation=ScaffoldFederation()), "declined.federation"),
        (Policy(federations=["scaffold"]), changed(federation=ScaffoldFederation()), None),
        (Policy(federations=["mean"]), changed(federation=FedDynFederation()), "declined.federation"),
        (Policy(federations=["mean"]), changed(federation__proximal=0.1), "declined.federation"),
        (Policy(federations=["mean", "proximal"]), changed(federation__proximal=0.1), None),
        (Policy(federations=["mean"]), changed(federation__local=["*norm*"]), "declined.federation"),
        (Policy(federations=["mean"]), changed(federation__personal=0.1), "declined.federation"),
        (Policy(), changed(training__batch=1), "declined.batch"),
        (Policy(minimum_batch=1), changed(training__batch=1), None),
        (Policy(), changed(training__batch=1, rounds=0), None),  # nothing is trained
        (Policy(), changed(privacy=DpSgd(batch=1)), "declined.batch"),
        (Policy(), changed(privacy=DpSgd(batch=2), training__batch=1), None),  # which means nothing under noise
        (Policy(require_privacy=True), changed(privacy=DpSgd(noise_seed=1)), "declined.privacy"),
        (Policy(require_privacy=True), changed(privacy=DpSgd()), None),
        (Policy(), changed(training__epochs=51), "declined.epochs"),
        (Policy(), changed(training__epochs=50), None),
        (Policy(), changed(rounds=1001), "declined.rounds"),
    ],
)
def test_a_default_hospital_refuses_what_needs_a_word_of_its_own(policy, asked, code):
    if code is None:
        check_order(policy, asked)
        return
    with pytest.raises(PolicyRefusal, match="policy") as refusal:
        check_order(policy, asked)
    assert refusal.value.code == code


@pytest.mark.parametrize("to", [TRAIN, LEARNS_FROM_SUMS])
def test_a_step_without_rounds_learns_nothing_whatever_is_asked(to):
    """What it says of itself decides whether noise and large batches are asked for."""
    with pytest.raises(ConfigError, match=f"has no rounds, so nothing is learned for it; the order asks to {to}"):
        check_order(Policy(), changed(rounds=0), to=to)
    check_order(Policy(), order(), to=to)


def test_an_exact_fit_is_not_trained_by_batches():
    with pytest.raises(ConfigError, match="is fitted exactly, from sums"):
        check_order(Policy(), changed(federation=NewtonFederation()), to=TRAIN)
    check_order(Policy(), changed(federation=NewtonFederation()), to=LEARNS_FROM_SUMS)


@pytest.mark.parametrize("kind", SUMS)
def test_each_kind_of_sums_can_be_kept(kind):
    check_order(Policy(), order(), asks=[kind])
    check_order(Policy(sums=[kind]), order(), asks=[kind])
    with pytest.raises(PolicyRefusal, match=f"asks for {kind}") as refusal:
        check_order(Policy(sums=[other for other in SUMS if other != kind]), order(), asks=[kind])
    assert refusal.value.code == "declined.sums"


def test_an_order_says_which_sums_it_asks_for():
    exact = changed(federation=NewtonFederation())
    assert sums_asked(exact) == ["newton"] and sums_asked(replace(exact, round=0)) == ["moments"]
    assert sums_asked(changed(federation=NewtonFederation(objective="ridge"))) == ["gram"]
    assert sums_asked(replace(exact, subset=GRID)) == ["grid"]
    noised = changed(federation=NewtonFederation(), privacy=NoisedSums())
    assert sums_asked(replace(noised, round=0)) == ["newton"]
    assert scores_asked(order()) == ["scores"] and scores_asked(replace(order(), threshold=0.5)) == ["scores", "curves"]


def test_which_folds_may_test_is_the_hospitals_word():
    assert folds_of(Policy()) == [0] and folds_of(Policy(test_folds=["2", 0, "2"])) == [0, 2]
    assert folds_of(Policy(test_folds="all")) is None
    for fold in range(5):
        check_order(Policy(test_folds="all"), replace(order(), split=Split(fold=fold)))
    with pytest.raises(PolicyRefusal, match=r"fold 3 as the test; local policy allows 0\. A cross-validated study"):
        check_order(Policy(), replace(order(), split=Split(fold=3)))


@pytest.mark.parametrize("folds", ["none", "0", [], ["a"], [-1], None, 0])
def test_folds_that_are_none_are_named(folds):
    with pytest.raises(ConfigError, match=r"policy\.test_folds is .*as in \[0\], or all"):
        folds_of(Policy(test_folds=folds))
