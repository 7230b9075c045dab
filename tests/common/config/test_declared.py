"""What a run names must exist or fit, and what is declared is what the models and tasks have."""

from __future__ import annotations

import re

import pytest
import torch

from common.backbones import build_backbone
from common.config.backbones import MULTIPLES, declared_multiple
from common.config.declared import LOSS, metrics_of
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.config.run import BackboneSpec
from common.config.task import ClassificationTask, GroundingTask, PrognosisTask, SegmentationTask
from common.tasks import build_task, merge_sums


@pytest.mark.parametrize(("kind", "config"), [(kind, name) for kind in MULTIPLES for name in MULTIPLES[kind]])
def test_declared_multiples_are_those_of_the_models(kind, config):
    spec = BackboneSpec(kind=kind, config=config)
    with torch.device("meta"):
        built = build_backbone(BackboneSpec(kind=kind, config="mini" if config == "any" else config))
    assert declared_multiple(spec) == tuple(built.multiple)


def test_a_model_that_declares_nothing_is_not_judged():
    assert declared_multiple(BackboneSpec(kind="own")) is None


@pytest.mark.parametrize(
    "task",
    [
        SegmentationTask(structures=["GTVp", "GTVn"]),
        GroundingTask(structures=["GTVp", "GTVn"]),
        ClassificationTask(classes=["a", "b"], form="multi_label"),
        ClassificationTask(classes=["hpv"], form="binary"),
        PrognosisTask(loss="cox"),
        PrognosisTask(loss="deephit"),
    ],
)
def test_declared_metrics_are_those_that_the_task_gives(task):
    built = build_task(task)
    assert set(built.metrics(merge_sums([built.sums([])]))) == set(metrics_of(task) or []) - {LOSS}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("name=../x", "name is '../x', which is no name of a single folder"),
        ("name=/tmp/x", "name is '/tmp/x', which is no name of a single folder"),
        ("name=a/b", "name is 'a/b', which is no name of a single folder"),
        ("steps.tumour_ct.selection.metric=dsc_ag", "Did you mean 'dsc_agg'?"),
        ("steps.tumour_ct.task.structures=[GTVp,GTVm]", "has GTVm, which the phantom cohort does not outline"),
        ("steps.tumour_ct.task.structures=[GTVp,GTVp]", "task.structures names 'GTVp' twice."),
        ("steps.tumour_ct.centers=[CHUM,MDA,CHUM]", "centers names 'CHUM' twice."),
    ],
)
def test_what_does_not_exist_is_told(override, sentence):
    [problem] = broken_rules(compose_run(["curriculum=smoke", override]))
    assert sentence in problem


def test_a_window_of_half_patches_is_told_with_what_fits():
    sides = [f"steps.tumour_ct.view.{key}=[32,32,20]" for key in ("window", "size")]
    [problem] = broken_rules(compose_run(["curriculum=smoke", *sides]))
    assert "must be multiples of this backbone's (tiny mini) [8, 8, 8]; the nearest is steps." in problem


def test_the_nearest_windows_that_plan_names_make_the_quickstart_fit_the_released_ct_clip():
    released = ["curriculum=quickstart", "backbone=ct_clip", "backbone.weights=w", "backbone.text_folder=t"]
    problems = broken_rules(compose_run(released))
    assert len(problems) == 5 and all("[10, 20, 20]" in problem for problem in problems)
    named = [word for problem in problems for word in re.findall(r"steps\.\S+=\[[\d,]+\]", problem)]
    assert "steps.tumour_ct.view.window=[30,40,40]" in named
    assert broken_rules(compose_run([*released, *named])) == []


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("task.prompts=manuel", "task.prompts is 'manuel'; it can be attributes or manual. Did you mean 'manual'?"),
        ("task.phrases={GTVx: lump}", "task.phrases says something of GTVx, which task.structures does not name"),
        ("task.attributes={GTVp: [a]}", "task.prompts=manual does not look at it; set task.prompts=attributes."),
        ("task.prompts=attributes", "task.attributes says nothing of GTVn, GTVp; give [color, shape, location]"),
        ("task.outlined={CHUM: [brain]}", "task.outlined says something of brain, which task.structures does not name"),
        ("modalities=[EHR]", "grounding looks for boxes in an image, as CT or PET, and none is among the modalities."),
        ("selection.metric=dsc_agg", "selection.metric is 'dsc_agg', which a grounding step does not have"),
        ("training.views=[affine]", "training.views has affine, which moves images and not the boxes on them"),
        ("view.window=[16,16,16]", "only segmentation works by windows; make view.size equal to view.window."),
    ],
)
def test_what_is_wrong_with_boxes_that_words_ask_for_is_told_in_a_sentence(override, sentence):
    problems = broken_rules(compose_run(["curriculum=grounding", f"steps.grounding.{override}"]))
    assert any(sentence in problem for problem in problems), problems
