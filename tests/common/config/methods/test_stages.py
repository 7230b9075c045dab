"""What is wrong with a stage is said before anything runs."""

import copy

import pytest

from common.config.adapter import DecoderPart
from common.config.load import compose_run
from common.config.methods.stages import masked_problems
from common.config.rules import broken_rules


@pytest.fixture(scope="module")
def medcoss():
    return compose_run(["curriculum=medcoss"])


def said(run, **changes) -> list[str]:
    step = copy.deepcopy(run.steps["stage_ct"])
    for name, value in changes.items():
        holder = step if hasattr(step, name) else step.task
        setattr(holder, name, value)
    return list(masked_problems(step, run))


def test_the_curriculum_has_no_problem(medcoss):
    assert broken_rules(medcoss) == []


def test_a_stage_that_looks_at_nothing_or_at_what_it_has_not(medcoss):
    assert said(medcoss, sources=[]) == ["its masked task names no source; set task.sources, as in [CT] or [EHR]."]
    [sentence] = said(medcoss, sources=["MR"])
    assert sentence == "task.sources looks at MR, not among its modalities ['CT']; add it there."


def test_another_backbone_is_refused(medcoss):
    run = copy.deepcopy(medcoss)
    run.backbone.kind = "unetr"
    [sentence] = masked_problems(run.steps["stage_ct"], run)
    assert sentence == (
        "a masked task needs a backbone with tokenizers of every dimension, unetr has none; use "
        "backbone=dimension_free_tiny or backbone=dimension_free."
    )


@pytest.mark.parametrize("name, value", [("hidden", 1.0), ("hidden", -0.1), ("width", 30), ("layers", 0)])
def test_numbers_out_of_range_are_said(medcoss, name, value):
    [sentence] = said(medcoss, **{name: value})
    assert f"task.{name} is {value:g}" in sentence or f"task.{name} {value:g}" in sentence


def test_parts_that_nothing_reads_are_refused(medcoss):
    step = copy.deepcopy(medcoss.steps["stage_ct"])
    step.adapter.parts["decoder"] = DecoderPart()
    [sentence] = masked_problems(step, medcoss)
    assert sentence == "a masked task trains full or lora parts and its own decoders; take out decoder."
