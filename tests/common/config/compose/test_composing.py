"""A command line is told everything that it misspells at once, with the nearest known word, and never to append."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from common.config.compose.composing import composed, forget
from common.config.load import CONFIGS, compose_run, run_to_yaml
from common.config.run import Run
from common.errors import ConfigError


def told(*overrides):
    with pytest.raises(ConfigError) as raised:
        compose_run(overrides)
    return str(raised.value).splitlines()


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(plus):
    [line] = told("curriculum=smoke", f"{plus}seeed=2")
    assert line.startswith(f"{plus}seeed=2: there is no option 'seeed'.") and line.endswith("Did you mean 'seed'?")
    assert "ppend" not in line


def test_everything_that_is_misspelt_is_told_at_once():
    lines = told(
        "curriculum=quikstart", "backbone=tinny", "backbon=tiny", "feddd@steps.tumour_ct.federation=mean",
        "+steps.tumour_ct.rouns=3", "learning_rate=1", "seed",
    )  # fmt: skip
    ends = [
        "Put what holds spaces, commas or brackets in quotes.", "Did you mean 'quickstart'?", "Did you mean 'tiny'?",
        "Did you mean 'backbone'?", "federation, privacy, runtime, step, study, task.",
        "Did you mean 'rounds'?",
        "Did you mean steps.NAME.training.learning_rate or controls.NAME.training.learning_rate?",
    ]  # fmt: skip
    assert [line.endswith(end) for line, end in zip(lines, ends, strict=True)] == [True] * len(ends), lines


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("steps.tumor_ct.rounds=3", "there is no option 'tumor_ct' below steps. Known: "),
        ("steps.tumour_ct.federation.quorumm=1", "Did you mean 'quorum'?"),
        ("+steps.tumour_ct.task.lossy=1", "there is no option 'lossy' below steps.tumour_ct.task."),
        ("steps.tumour_ct.rounds=many", "'many' is not a whole number."),
        ("data.scale=big", "'big' is not a number."),
        ("federation@steps.tumor_ct.federation=mean", "Did you mean 'federation@steps.tumour_ct.federation'?"),
        ("seed=1,2", "names several values"),
        ("faults=nan", "faults holds options by name; set one with faults.NAME=…"),
        ("steps.tumour_ct.task=3", "steps.tumour_ct.task holds options by name; set one with"),
        ("study=null", "study takes a name; leave it out for none. Known: aggregation, attacks, "),
        ("~data.scale", "an option cannot be taken out; give it another value."),
        ("++hydra.job.name=x", "there is no option 'hydra'."),
    ],
)
def test_what_only_the_composed_run_knows_is_told_alike(override, sentence):
    [line] = told("curriculum=smoke", override)
    assert sentence in line and line.removeprefix("'").startswith(override)


def test_two_wrong_values_are_told_together():
    assert told("curriculum=smoke", "seed=x", "data.scale=y") == [
        "seed=x: 'x' is not a whole number.",
        "data.scale=y: 'y' is not a number.",
    ]


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_an_entry_of_an_open_mapping_needs_no_plus(plus):
    run = compose_run(["curriculum=smoke", f"{plus}data.centers.CHUM=HN1", f"{plus}seed=7"])
    assert run.data.centers == {"CHUM": "HN1"} and run.seed == 7


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"curriculum={path.stem}"] for path in sorted((CONFIGS / "curriculum").glob("*.yaml"))),
        ["curriculum=smoke", "federation@steps.tumour_ct.federation=krum", "steps.tumour_ct.federation.faulty=2"],
        ["curriculum=quickstart", "adapter@steps.tumour_ct.adapter=decoder_lora", "~steps.findings"],
    ],
    ids=" ".join,
)
def test_the_run_is_what_hydra_itself_composes(overrides):
    ours = composed(CONFIGS, overrides, root=Run)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert OmegaConf.to_object(compose("config", overrides=overrides)) == OmegaConf.to_object(ours)


def test_runs_of_one_process_share_what_is_merged_and_nothing_that_is_set():
    words = ["curriculum=smoke", "steps.tumour_ct.centers=[CHUM]", "data.centers.CHUM=HN1", "~steps.tumour_ctpet"]
    changed = composed(CONFIGS, words, root=Run)
    changed.steps.tumour_ct.rounds, changed.data.structures = 9, ["GTVp"]
    plain = composed(CONFIGS, ["curriculum=smoke"], root=Run)
    forget()
    assert OmegaConf.to_object(plain) == OmegaConf.to_object(composed(CONFIGS, ["curriculum=smoke"], root=Run))
    assert list(plain.steps) == ["tumour_ct", "tumour_ctpet"] and plain.data.centers == {}


def test_an_entry_of_a_defaults_list_may_read_a_choice(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "config.yaml").write_text("defaults:\n  - data: near\n  - more: ${data}_more\n  - _self_\n")
    for name, text in {
        "data/near": "x: 1",
        "data/far": "x: 2",
        "more/near_more": "y: 1",
        "more/far_more": "y: 2",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    assert composed(tmp_path, [], root=Run) == {"data": {"x": 1}, "more": {"y": 1}}
    assert composed(tmp_path, ["data=far"], root=Run) == {"data": {"x": 2}, "more": {"y": 2}}


def test_a_resolved_run_is_written_as_omegaconf_writes_it():
    run = compose_run(["curriculum=quickstart", "data.centers.CHUM=HN1", "data.root=a: b", "name=007"])
    assert run_to_yaml(run) == OmegaConf.to_yaml(OmegaConf.create(asdict(run)))
