"""Federations and LoRA rules from YAML: every file composes, and what cannot work is said in sentences."""

from __future__ import annotations

import pytest

from common.config.compatibility import CHOOSES_WEIGHTS, CONTROLLED, COORDINATE, SERVER_OPTIMIZERS
from common.config.federation import FEDERATIONS
from common.config.load import CONFIGS, compose_run, step_from_json, step_to_json
from common.config.rules import broken_rules


@pytest.mark.parametrize("kind", sorted(FEDERATIONS))
def test_every_federation_composes_and_travels(kind):
    exact = ["adapter@steps.relapse.adapter=linear", "task@steps.relapse.task=hazard"] if kind == "newton" else []
    curriculum = "diagnosis" if kind in ("bulyan", "krum", "multi_krum") else "quickstart"  # they need seven centers
    run = compose_run([f"curriculum={curriculum}", f"federation@steps.relapse.federation={kind}", *exact])
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
        (["rule=fedsvd", "refresh_every=0"], "adapter.parts.within.refresh_every is 0; it can be 1 to 100000."),
        (
            ["/krum"],
            "krum withstands 2 faulty centers among at least 2 x 2 + 3 = 7, but the step names 6, so every round would "
            "be void; name more centers, or lower federation.faulty to 1.",
        ),
        (["/krum", ".faulty=-1"], "federation.faulty is -1; it must be 0 or more."),
        (["/fedadam", ".learning_rate=0"], "federation.learning_rate is 0.0; it must be positive."),
        (["/fedavgm", ".momentum=1"], "federation.momentum is 1.0; it must be in [0, 1)."),
        (["/multi_krum", ".faulty=1", ".keep=0"], "federation.keep is 0; it must be 1 or more."),
    ],
)
def test_what_cannot_work_is_said(overrides, sentence):
    part, step = "steps.relapse.adapter.parts.within", "steps.relapse.federation"
    places = {"/": f"federation@{step}=", ".": f"{step}."}
    made = [f"{places[o[0]]}{o[1:]}" if o[0] in places else f"{part}.{o}" for o in overrides]
    [problem] = broken_rules(compose_run(["curriculum=quickstart", *made]))
    assert sentence in problem


HMR = ["curriculum=quickstart", "federation@steps.hmr_joins.federation=hostile"]
FOUR = "steps.hmr_joins.centers=[CHUM, CHUP, HMR, MDA]"


def test_a_robust_rule_for_a_step_that_names_too_few_centers_is_refused():
    [problem] = broken_rules(compose_run(HMR))
    assert problem == (
        "Step 'hmr_joins': federation geometric_median withstands 2 faulty centers among at least 2 x 2 + 1 = 5, but "
        "the step names 1, so every round would be void; name more centers, or use federation=mean."
    )
    four = broken_rules(compose_run([*HMR[:1], "federation@steps.hmr_joins.federation=bulyan", FOUR]))
    assert "name more centers, or use centered_clip or geometric_median or median or norm_clip or trimmed" in four[0]


def test_centers_are_not_counted_where_everyone_is_asked_or_nobody_trains():
    for change in ("steps.hmr_joins.centers=['*']", "steps.hmr_joins.rounds=0", "steps.hmr_joins.federation.faulty=0"):
        assert broken_rules(compose_run([*HMR, change])) == []


def test_the_examples_in_the_headers_have_no_broken_rule():
    for path in sorted((CONFIGS / "federation").glob("*.yaml")):
        command = path.read_text().partition("\n")[0].partition("python -m ")[2].split()
        assert broken_rules(compose_run(command[2:])) == [], path.name
