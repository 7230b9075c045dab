"""What is wrong with a stage is said before anything runs."""

import copy

import pytest

from common.config.adapter import DecoderPart
from common.config.load import compose_run
from common.config.methods.continual import MedcossMethod
from common.config.methods.stages import masked_problems, rehearsal_problems, stage_order_problems
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


def rehearsing(run, name="stage_ct", **options):
    step = copy.deepcopy(run.steps[name])
    step.methods = [MedcossMethod(**options)]
    return [*rehearsal_problems(step, run), *stage_order_problems(step, run)]


def test_a_stage_order_that_repeats_or_runs_ahead_is_said(medcoss):
    assert rehearsing(medcoss, stages=["EHR", "CT:slices"]) == []
    assert rehearsing(medcoss, stages=["CT"]) == [
        "method medcoss rehearses CT_volume, which this step learns: a stage order does not repeat."
    ]
    assert rehearsing(medcoss, stages=["PET"]) == [
        "method medcoss rehearses PET_volume, which no earlier step learns; learned before: CT_slices, EHR_report."
    ]
    assert rehearsing(medcoss, stages=["EHR", "EHR"]) == [
        "method medcoss's stages names EHR_report twice; a stage is learned once."
    ]


@pytest.mark.parametrize("options", [{"share": 1.0}, {"kept": 1.5}, {"kept": 0.0}, {"clusters": 2.0}])
def test_a_buffer_larger_than_the_site_is_said(medcoss, options):
    [sentence] = rehearsing(medcoss, **options)
    assert "the others are of a stage's cases, above 0 and at most 1" in sentence


def test_a_step_with_labels_cannot_rehearse_stages(medcoss):
    assert rehearsing(medcoss, "tumour_ct", stages=["EHR"]) == [
        "method medcoss keeps self-supervised stages, and this step's task is no masked one; take it out."
    ]
