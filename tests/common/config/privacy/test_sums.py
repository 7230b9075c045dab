"""What a step of secure sums must be: every refusal is one sentence; a step without keeps its text, and so its key."""

import copy

import pytest

from common.config.adapter import LinearPart
from common.config.federation import Compression, Guards, MedianFederation, ScaffoldFederation
from common.config.load import compose_run, step_from_json, step_to_json
from common.config.methods.continual import EwcMethod
from common.config.rules import broken_rules

RUN = compose_run(["curriculum=smoke", "federation=secure"])


def said_of(change):
    run = copy.deepcopy(RUN)
    change(run.steps["tumour_ct"])
    return [problem for problem in broken_rules(run) if problem.startswith("Step 'tumour_ct'")]


def test_the_preset_may_run_and_crosses_the_network():
    assert all(step.federation.secure_aggregation and step.federation.sum_only for step in RUN.steps.values())
    assert said_of(lambda step: None) == []
    step = RUN.steps["tumour_ct"]
    assert step_from_json(step_to_json(step)) == step and '"secure_aggregation":true' in step_to_json(step)


def test_a_step_without_secure_sums_keeps_its_text():
    assert "secure" not in step_to_json(compose_run(["curriculum=smoke"]).steps["tumour_ct"])


def changed(**options):
    def change(step):
        for name, value in options.items():
            target, _, last = name.rpartition("__")
            setattr(getattr(step, target) if target else step, last, value)

    return change


def other(kind):
    return lambda step: setattr(step, "federation", kind(secure_aggregation=True, guards=Guards(norm_factor=0.0)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other(MedianFederation), "federation.secure_aggregation hides single updates, median looks at them; use"),
        (other(ScaffoldFederation), "has no bound for SCAFFOLD's control variates; use mean or feddyn."),
        (changed(federation__guards=Guards()), "hides each update's norm: set guards.norm_factor to 0"),
        (changed(federation__guards=Guards(norm_factor=0.0, validation="median")), "set guards.validation to pooled."),
        (
            changed(federation__compression=Compression("fp16")),
            "masks are of whole numbers; set federation.compression",
        ),
        (changed(federation__secure_bound=0.0), "federation.secure_bound is 0; it must be positive and finite"),
        (changed(centers=["CHUM", "MDA"]), "it names 2 centers, and a secure sum is of three or more; name more."),
        (
            changed(adapter__parts={"linear": LinearPart(harmonize="combat")}),
            "part 'linear' is harmonized by each center's own moments, which secure_aggregation hides",
        ),
        (changed(subgroups=["sex"]), "scores by subgroup are told center by center"),
        (changed(methods=[EwcMethod()]), "method ewc needs sums of single centers at a step's end"),
    ],
)
def test_what_a_secure_sum_cannot_be_asked_is_said(change, sentence):
    assert any(sentence in problem for problem in said_of(change)), said_of(change)
