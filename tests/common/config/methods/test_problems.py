"""What a step may list under methods: names and mappings become options, what cannot be is said in one sentence."""

import pytest

from common.config.adapter import LoraPart
from common.config.load import CONFIGS, compose_run, step_from_json, step_to_json
from common.config.methods import CONTINUAL, KEEPING, METHODS
from common.config.methods.chosen import chosen
from common.config.methods.continual import InfLoraMethod
from common.config.methods.drift import DittoMethod, ProximalMethod
from common.config.rules import broken_rules
from common.errors import ConfigError, UnknownName

PRESETS = CONFIGS / "method"


@pytest.mark.parametrize("kind", METHODS)
def test_a_name_and_its_preset_are_the_same_options(kind):
    spec = chosen(kind, presets=PRESETS)
    assert type(spec) is METHODS[kind] and spec.kind == kind
    assert chosen({"kind": kind}, presets=PRESETS) == spec == chosen(spec, presets=PRESETS)


def test_every_preset_is_of_a_method():
    assert {path.stem for path in PRESETS.glob("*.yaml")} <= set(METHODS)


def test_a_mapping_changes_the_preset():
    assert chosen({"kind": "ditto", "strength": 3}, presets=PRESETS) == DittoMethod(3.0)


def test_a_list_on_the_command_line_is_typed_and_travels():
    run = compose_run(["steps.tumour_ct.methods=[ditto,{kind: proximal, strength: 0.5}]"])
    step = run.steps["tumour_ct"]
    assert step.methods == [DittoMethod(), ProximalMethod(0.5)] and broken_rules(run) == []
    assert step_from_json(step_to_json(step)) == step


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ("dito", UnknownName, r"Unknown method 'dito'.*Did you mean 'ditto'"),
        ({"strength": 1}, UnknownName, "Unknown method ''"),
        ({"kind": "ditto", "mu": 1}, UnknownName, "Unknown option of method ditto 'mu'. Known: strength"),
        ({"kind": "ditto", "strength": "much"}, ConfigError, "Method ditto has an option of another type"),
    ],
)
def test_what_is_no_method_is_said(entry, error, said):
    with pytest.raises(error, match=said):
        chosen(entry, presets=PRESETS)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["methods=[ditto,ditto]"], "method ditto is asked for twice; once is enough."),
        (["methods=[proximal]", "federation.proximal=0.1"], "federation asks for proximal by an option of its own"),
        (["methods=[scaffold]"], "set federation@steps.tumour_ct.federation=scaffold."),
        (["methods=[ditto,local]"], "use one of them."),
        (["methods=[{kind: proximal, strength: -1}]"], "method proximal has strength -1; it must be 0 or more."),
    ],
)
def test_methods_that_cannot_go_together_are_said_in_a_sentence(overrides, said):
    problems = broken_rules(compose_run([f"steps.tumour_ct.{override}" for override in overrides]))
    assert len([problem for problem in problems if said in problem]) == 1, problems


def test_a_drift_method_does_not_go_with_a_rule_that_corrects_drift():
    named = ["federation@steps.tumour_ct.federation=scaffold", "steps.tumour_ct.methods=[proximal]"]
    assert any("scaffold corrects drift by itself" in problem for problem in broken_rules(compose_run(named)))


LINEAGE = ["steps.tumour_ct.writes=tumor", "steps.tumour_ctpet.writes=tumor", "steps.tumour_ctpet.starts_from=null"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [],
            "and nothing says how that goes on: set steps.tumour_ctpet.methods to one or more of derpp, ewc, features",
        ),
        (["steps.tumour_ctpet.methods=[sequential,lwf]"], "nothing keeps what was known, lwf keeps it; use one."),
        (["steps.tumour_ct.methods=[lwf]"], "Step 'tumour_ct' lists lwf, which keeps what was known, and starts from"),
        (
            ["steps.tumour_ctpet.methods=[ewc]"],
            "lists ewc and starts from 'tumour_ct', which does not list it and so keeps nothing for it: set "
            "steps.tumour_ct.methods=[ewc] as well",
        ),
        (["steps.tumour_ctpet.methods=[ewc,online_ewc]"], "add the same Fishers up in two ways; use one of them."),
        (
            ["steps.tumour_ctpet.methods=[{kind: online_ewc, decay: 1}]"],
            "method online_ewc has decay 1; it must be 0 or more and below 1: at 1 it grows with every step.",
        ),
        (
            ["steps.tumour_ctpet.methods=[{kind: derpp, at: [CHUM]},{kind: rehearsal, at: [CHUM]}]"],
            "methods derpp and rehearsal keep the same memory in two ways; use one of them.",
        ),
        (["steps.tumour_ctpet.methods=[{kind: derpp, at: [CHUM], alpha: -1}]"], "derpp has alpha -1; it must be 0 or"),
        (
            ["steps.relapse.methods=[olora]"],
            "method olora holds a LoRA part that trains against one that rests; within of within trains here.",
        ),
        (["steps.relapse.methods=[{kind: olora, form: cubed}]"], "has form 'cubed'; it can be absolute or squared."),
        (
            ["steps.tumour_ctpet.methods=[{kind: projection, energy: 1.5}]"],
            "method projection has energy 1.5; it must be from 0 to 1.",
        ),
        (
            ["steps.relapse.methods=[projection]", "steps.relapse.adapter.parts.within.rule=flora"],
            "and the rule of within (flora) makes factors anew; use fedit, ffa or rolora.",
        ),
        (
            ["steps.relapse.methods=[projection]", "steps.relapse.adapter.parts.within.dora=true"],
            "method projection cannot hold DoRA, whose norms change every answer; set dora to false.",
        ),
        (
            ["steps.relapse.methods=[projection]", "steps.relapse.modalities=[CT,RECORD]"],
            "a record's columns can be of one patient; take RECORD out of modalities",
        ),
        (["steps.relapse.methods=[inflora]"], "lets it rest, and part 'within' has rule rolora; set steps.relapse.ad"),
        (
            ["steps.relapse.methods=[inflora]", "steps.relapse.adapter.parts.within.dora=true"],
            "method inflora cannot hold DoRA, whose norms change every answer; set steps.relapse.adapter.parts.within.",
        ),
        (["steps.tumour_ct.methods=[inflora]"], "makes rows of a LoRA part, and none trains in this step; add one"),
        (
            ["steps.relapse.methods=[inflora]", "steps.relapse.modalities=[CT,RECORD]"],
            "method inflora sends second moments of layer inputs, and a record's columns can be of one patient",
        ),
        (
            ["steps.relapse.methods=[inflora,projection]"],
            "methods inflora and projection cannot go together: projection holds factor B",
        ),
        (["steps.relapse.methods=[inflora,olora]"], "cannot go together: olora turns factor A, which inflora makes"),
        (["steps.relapse.methods=[{kind: inflora, rank: -1}]"], "method inflora has rank -1; it must be 0 or more."),
        (
            ["steps.relapse.methods=[{kind: inflora, rank: 9}]"],
            "makes rows 1 to 9 of part 'within' its own by method inflora, and the part has 8: set",
        ),
        (
            ["steps.relapse.methods=[inflora]", "privacy@steps.relapse.privacy=dp_sgd"],
            "on which no noise is put; under",
        ),
        (
            ["steps.relapse.methods=[ewc]", "steps.relapse.task.loss=cox"],
            "method ewc sums each patient's own gradient, and Cox's loss only compares patients",
        ),
        (["steps.tumour_ctpet.methods=[mib]"], "method mib teaches the structures that a center does not outline"),
        (
            ["steps.tumour_ctpet.methods=[mib]", "steps.tumour_ctpet.task.outlined={CHUM: [GTVx]}"],
            "task.outlined says something of GTVx, which task.structures does not name; it names GTVp, GTVn.",
        ),
        (["steps.tumour_ctpet.methods=[{kind: lwf, temperature: 0}]"], "lwf has temperature 0; it must be above 0."),
        (
            ["steps.tumour_ctpet.methods=[features]", "steps.tumour_ctpet.train_parts=[decoder]"],
            "no part that trains in this step is inside the encoder",
        ),
        (
            ["steps.tumour_ctpet.methods=[lwf]", "steps.tumour_ctpet.starts_from=findings"],
            "goes on with lineage 'tumor' but starts from 'findings', which does not write it",
        ),
    ],
)
def test_what_a_lineage_cannot_go_on_with_is_said_in_a_sentence(overrides, said):
    problems = broken_rules(compose_run(["curriculum=quickstart", *LINEAGE, *overrides]))
    assert any(said in problem for problem in problems), problems


APART = {"inflora", "mib", "olora"}  # which need LoRA parts of their own, or structures that somebody does not outline


@pytest.mark.parametrize("method", sorted(CONTINUAL - APART))
def test_a_lineage_goes_on_by_any_continual_method(method):
    words = [f"steps.tumour_ctpet.methods=[{method}]"]
    words += [f"steps.tumour_ct.methods=[{method}]"] if method in KEEPING else []
    assert broken_rules(compose_run(["curriculum=quickstart", *LINEAGE, *words])) == []


def test_steps_of_a_lineage_claim_no_more_rows_than_the_part_has():
    run = compose_run(["curriculum=quickstart", *LINEAGE])
    said = {}
    for first in (5, 4, 0):  # at 0 the first step trains the part whole
        for name, rank in {"tumour_ct": first, "tumour_ctpet": 4}.items():
            run.steps[name].adapter.parts["within"] = LoraPart(sites=["image_attention"], rule="ffa")
            run.steps[name].methods = [InfLoraMethod(rank=rank)]
        said[first] = [problem for problem in broken_rules(run) if "inflora" in problem]
    assert said[4] == [] and "makes rows 9 to 12 of part 'within'" in said[0][0]
    [problem] = said[5]
    assert "'tumour_ctpet' makes rows 6 to 9 of part 'within' its own by method inflora, and the part has 8" in problem
