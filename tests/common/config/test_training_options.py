"""Options of real training: refused with a reason where they cannot be, and no part of a key where nobody sets them."""

from __future__ import annotations

import json

import pytest

from common.config.load import compose_run, step_from_json, step_to_json
from common.config.rules import broken_rules

STEP = "steps.tumour_ctpet"
LATER = {
    "view": {"overlap", "mirrors"},
    "training": {"views", "foreground", "optimizer", "moments"},
    "task": {"loss", "largest_component", "smallest_ml"},
}


def problems(*options: str) -> list[str]:
    return broken_rules(compose_run(["curriculum=quickstart", *(f"{STEP}.{option}" for option in options)]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["training.views=[affine,gama]"], "Did you mean 'gamma'?"),
        (["training.foreground=1.5"], "training.foreground is 1.5"),
        (["training.optimizer=adam"], "it can be adamw, sgd"),
        (["training.moments=kept"], "it can be fresh, center, averaged"),
        (["training.moments=center", "training.optimizer=sgd"], "keeps AdamW's moments"),
        (["training.moments=averaged", "federation.sum_only=true"], "use training.moments=center"),
        (["methods=[kept_moments]"], "comes with training.moments=center"),
        (["view.overlap=0.95"], "view.overlap is 0.95"),
        (["view.mirrors=[width,width]"], "at most once"),
        (["task.loss=dice"], "it can be dice_ce, dice_focal, tversky"),
        (["task.smallest_ml=-1"], "task.smallest_ml is -1"),
        (["adapter=[decoder,pet,uptake]"], "set view.pet=suv"),
        (["adapter=[decoder,unet]"], "is a step's only part"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, said):
    found = problems(*options)
    assert any(said in problem for problem in found), found


def test_what_can_be_is_accepted():
    views = "training.views=[affine,blur,elastic,gamma,low_resolution,noise,scanner]"
    assert problems(views, "training.moments=averaged", "view.mirrors=[width]", "task.loss=tversky") == []
    assert problems("view.pet=suv", "training.optimizer=sgd", "task.largest_component=true") == []
    run = compose_run(["curriculum=quickstart", "adapter@steps.tumour_ctpet.adapter=unet"])
    assert broken_rules(run) == []
    pieces = "steps.tumour_ctpet.adapter=[decoder,pet,uptake]"
    assert broken_rules(compose_run(["curriculum=quickstart", pieces, f"{STEP}.view.pet=suv"])) == []


def test_options_that_nobody_sets_are_no_part_of_a_steps_key():
    plain = json.loads(step_to_json(compose_run(["curriculum=quickstart"]).steps["tumour_ctpet"]))
    assert not any(LATER[group] & set(plain[group]) for group in LATER)
    assert "deep_supervision" not in plain["adapter"]["parts"]["decoder"]


def test_options_that_are_set_travel_and_come_back():
    options = ["training.views=[gamma]", "view.overlap=0.25", "task.loss=tversky", "training.moments=center"]
    run = compose_run(["curriculum=quickstart", *(f"{STEP}.{option}" for option in options),
                       f"{STEP}.adapter.parts.decoder.deep_supervision=true"])  # fmt: skip
    step = run.steps["tumour_ctpet"]
    back = step_from_json(step_to_json(step))
    assert back == step and back.training.views == ["gamma"] and back.task.loss == "tversky"
    assert back.adapter.parts["decoder"].deep_supervision is True
