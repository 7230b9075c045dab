"""A run is data: it composes, travels as JSON, and everything that is wrong is said at once."""

import json

import pytest

from common.config.load import CONFIGS, compose_run, step_from_json, step_to_json
from common.config.rules import broken_rules, left_open
from common.errors import ConfigError, UnknownName
from common.tasks import build_task

REAL = ("sts7", "sts7_exact", "sts7_fair")
CURRICULA = sorted(path.stem for path in (CONFIGS / "curriculum").glob("*.yaml"))


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_every_curriculum_composes_and_breaks_no_rule(curriculum):
    run = compose_run([f"curriculum={curriculum}", *(["data.root=somewhere"] if curriculum in ("own", *REAL) else [])])
    left = [problem for step in run.steps.values() for problem in left_open(step)]
    assert (left != []) == (curriculum == "own")  # what a folder answers: tests/simulations/virtual/test_own_data.py
    assert broken_rules(run) == [] or left


@pytest.mark.parametrize("curriculum", CURRICULA)
def test_a_step_survives_the_wire_unchanged(curriculum):
    run = compose_run([f"curriculum={curriculum}", *(["data.root=somewhere"] if curriculum in REAL else [])])
    for step in run.steps.values():
        assert step_from_json(step_to_json(step)) == step


def test_a_group_is_swapped_in_one_step_and_a_value_set_in_another():
    run = compose_run(["adapter@steps.relapse.adapter=image_prognosis", "steps.tumour_ct.rounds=5"])
    assert sorted(run.steps["relapse"].adapter.parts) == ["fusion", "image", "within"]
    assert run.steps["tumour_ct"].rounds == 5 and run.steps["tumour_ctpet"].rounds != 5


def test_a_bare_federation_is_every_steps_but_those_named_or_fitted_exactly():
    given = ["curriculum=quickstart", "federation=hostile", "federation@steps.hmr_joins.federation=mean"]
    run = compose_run([*given, "with_controls=true"])
    kinds = {name: step.federation.kind for name, step in run.steps.items() if step.rounds}
    robust = compose_run(["federation@steps.relapse.federation=hostile"]).steps["relapse"].federation
    assert {kinds.pop("hmr_joins")} == {"mean"} and set(kinds.values()) == {robust.kind} and "relapse_ct" in kinds
    assert run.steps["tumour_ctpet"].federation == robust
    exact = compose_run(["curriculum=exact", "federation=hostile"])
    assert {step.federation.kind for step in exact.steps.values()} == {"newton"}


def test_a_misspelt_key_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"steps\.relapse\.round"):
        compose_run(["steps.relapse.round=3"])


def test_an_unknown_curriculum_lists_the_known_ones():
    with pytest.raises(ConfigError, match="quickstart"):
        compose_run(["curriculum=quickstat"])


def test_all_broken_rules_are_reported_at_once():
    run = compose_run(["steps.tumour_ct.rounds=-1", "runtime.device=tpu", "steps.relapse.federation.quorum=2"])
    problems = "\n".join(broken_rules(run))
    for expected in ("rounds is -1", "runtime.device is 'tpu'", "federation.quorum is 2"):
        assert expected in problems


def test_a_pet_part_without_pet_is_a_broken_rule():
    run = compose_run(["steps.tumour_ctpet.modalities=[CT]"])
    assert any("'stem_pet' is for PET" in problem for problem in broken_rules(run))


def test_a_step_from_the_network_cannot_name_code():
    data = json.loads(step_to_json(compose_run([]).steps["relapse"]))
    data["task"]["kind"] = "os.system"
    with pytest.raises(UnknownName, match=r"Unknown task .os\.system."):
        step_from_json(json.dumps(data))
    data["task"] = {"kind": "prognosis", "_target_": "os.system"}
    with pytest.raises(UnknownName, match="_target_"):
        step_from_json(json.dumps(data))


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_each_yaml_begins_with_what_it_is_for(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ") and len(lines[0]) > 20


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task@steps.relapse.task=cox"], "a single case has no Cox loss"),
        (["steps.relapse.selection.metric=c_index_across_centers"], "which only a simulation has. Use 'c_index'"),
        (["steps.hpv.task.target=outcome"], "its task predicts 'outcome'; it can be findings, hpv, n_stage, t_stage"),
        (["steps.hpv.task.form=ordinal"], "a task of form ordinal needs two classes or more"),
        (["steps.hpv.task.form=multi_label"], "'hpv' is one fact per patient"),
        (["steps.hpv.task.classes=[yes,no]"], "a binary task has one class"),
        (["steps.hpv.task.imbalance=weights"], "task.weights has 0 entries for 1 classes"),
        (["steps.hpv.task.imbalance=odd"], "imbalance: counts, none, weights"),
        (["backbone=ngrams"], "adapts the text side, but hashed n-grams have no layers"),
        (["backbone.text=bert"], "backbone.text is 'bert'; it can be ngrams, own"),
    ],
)
def test_a_task_that_cannot_work_is_said_in_a_sentence(overrides, sentence):
    problems = broken_rules(compose_run(["curriculum=diagnosis", *overrides]))
    assert any(sentence in problem for problem in problems), problems


@pytest.mark.parametrize("task", ["cox", "hazard", "mtlr", "hpv", "t_stage", "n_stage"])
def test_every_task_file_builds_its_task(task):
    slot = "relapse" if task in ("cox", "hazard", "mtlr") else "hpv"
    metric = "nll" if task == "cox" else "loss"
    run = compose_run(
        ["curriculum=diagnosis", f"task@steps.{slot}.task={task}", f"steps.{slot}.selection.metric={metric}"]
    )
    assert broken_rules(run) == [] and build_task(run.steps[slot].task).outputs >= 1


def test_hashed_text_goes_with_adapters_of_the_image_side():
    slots = [f"adapter@steps.{name}.adapter=ngram_prognosis" for name in ("relapse", "hpv")]
    assert broken_rules(compose_run(["curriculum=diagnosis", "backbone=ngrams", *slots])) == []
