"""Federations and LoRA rules from YAML: every file composes, and what cannot work is said in sentences."""

from __future__ import annotations

import pytest

from common.config.federation import CHOOSES_WEIGHTS, CONTROLLED, COORDINATE, SERVER_OPTIMIZERS
from common.config.load import CONFIGS, compose_run, step_from_json, step_to_json
from common.config.rules import broken_rules
from common.config.schema import FEDERATIONS


@pytest.mark.parametrize("kind", sorted(FEDERATIONS))
def test_every_federation_composes_and_travels(kind):
    assert (CONFIGS / "federation" / f"{kind}.yaml").is_file()
    exact = ["adapter@steps.relapse.adapter=linear", "task@steps.relapse.task=hazard"] if kind == "newton" else []
    run = compose_run(["curriculum=quickstart", f"federation@steps.relapse.federation={kind}", *exact])
    step = run.steps["relapse"]
    assert type(step.federation) is FEDERATIONS[kind]
    assert step_from_json(step_to_json(step)).federation == step.federation
    assert broken_rules(run) == []


def test_every_rule_has_a_place_among_what_can_work_together():
    assert set(FEDERATIONS) - {"newton"} == COORDINATE | SERVER_OPTIMIZERS | CONTROLLED | CHOOSES_WEIGHTS


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["rule=flora", "/median"],
            "aggregated by products of factors (rule flora), federation median works on single",
        ),
        (
            ["rule=fedsvd", "/scaffold"],
            "gets a new basis each round (rule fedsvd), which what centers keep for scaffold",
        ),
        (
            ["rule=flroa"],
            "part 'within' has rule 'flroa'; it can be fedex, fedit, fedsb, fedsvd, ffa, flexlora, flora,",
        ),
        (["rule=rolora", "dora=true"], "part 'within' is DoRA, whose row norms make rule 'rolora' inexact"),
        (["rule=fedex", "side_rank=0"], "part 'within' has side_rank 0; rule 'fedex' needs 1 or more."),
        (["rule=fedsvd", "refresh_every=0"], "part 'within' has refresh_every 0; use 1 or more."),
        (["/krum", ".faulty=-1"], "federation.faulty is -1; it must be 0 or more."),
        (["/fedadam", ".learning_rate=0"], "federation.learning_rate is 0.0; it must be positive."),
        (["/fedavgm", ".momentum=1"], "federation.momentum is 1.0; it must be in [0, 1)."),
        (["/multi_krum", ".keep=0"], "federation.keep is 0; it must be 1 or more."),
    ],
)
def test_what_cannot_work_is_said(overrides, sentence):
    part, step = "steps.relapse.adapter.parts.within", "steps.relapse.federation"
    places = {"/": f"federation@{step}=", ".": f"{step}."}
    made = [f"{places[o[0]]}{o[1:]}" if o[0] in places else f"{part}.{o}" for o in overrides]
    [problem] = broken_rules(compose_run(["curriculum=quickstart", *made]))
    assert sentence in problem
