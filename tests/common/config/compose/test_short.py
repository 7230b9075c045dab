"""What people type first means what they expect, for one step and for every step."""

from __future__ import annotations

import pytest

from common.config.compose.short import SHORT, spelled_out
from common.config.load import compose_run
from common.errors import ConfigError


def composed(overrides: tuple[str, ...]):
    return compose_run(["curriculum=quickstart", *overrides])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("steps.relapse.federation=fedadam", "federation@steps.relapse.federation=fedadam"),
        ("steps.relapse.task=cox", "task@steps.relapse.task=cox"),
        ("controls.relapse_ct.adapter=[image, fusion]", "adapter@controls.relapse_ct.adapter=[image, fusion]"),
        ("steps.relapse.learning_rate=1e-3", "steps.relapse.training.learning_rate=1e-3"),
        ("steps.relapse.lr=1e-3", "steps.relapse.training.learning_rate=1e-3"),
        ("steps.relapse.training.lr=1e-3", "steps.relapse.training.learning_rate=1e-3"),
        ("steps.relapse.batch_size=2", "steps.relapse.training.batch=2"),
        ("steps.relapse.draw.PET=1", "steps.relapse.training.draw.PET=1"),
        ("steps.relapse.rounds=3", "steps.relapse.rounds=3"),
        ("steps.relapse.federation.learning_rate=0.1", "steps.relapse.federation.learning_rate=0.1"),
        ("steps.relapse.task.loss=cox", "steps.relapse.task.loss=cox"),
        ("steps.relapse.task=null", "steps.relapse.task=null"),
        ("study.learning_rate=1e-3", "study.learning_rate=1e-3"),
        ("seed=2", "seed=2"),
    ],
)
def test_an_override_for_one_step_is_spelled_out(typed, meant):
    assert spelled_out([typed], lambda _: pytest.fail("nothing is asked of the steps")) == (meant,)


def test_a_value_for_every_step_reaches_those_that_are_trained_and_name_none_of_their_own():
    run = composed(("training.lr=5e-3", "training.epochs=3", "steps.relapse.learning_rate=1e-4", "with_controls=true"))
    rates = {name: step.training.learning_rate for name, step in run.steps.items()}
    assert rates.pop("relapse") == 1e-4 and rates.pop("findings") == 1e-3  # the latter is never trained
    assert set(rates.values()) == {5e-3} and "relapse_ct" in rates
    assert {step.training.epochs for step in run.steps.values() if step.rounds} == {3}


def test_steps_fitted_exactly_keep_their_rule_and_their_adapter():
    run = compose_run(["curriculum=exact", "federation=fedadam", "adapter=decoder"])
    assert {step.federation.kind for step in run.steps.values()} == {"newton"}
    assert {tuple(step.adapter.parts) for step in run.steps.values()} == {("linear",)}


def test_an_adapter_for_every_step():
    run = compose_run(["curriculum=smoke", "adapter=[decoder,lora_image]", "steps.tumour_ctpet.adapter=decoder_pet"])
    parts = {name: list(step.adapter.parts) for name, step in run.steps.items()}
    assert parts == {"tumour_ct": ["decoder", "within"], "tumour_ctpet": ["decoder", "stem_pet", "skip_pet"]}


def test_an_unknown_choice_written_as_a_value_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="fedadam"):
        compose_run(["steps.relapse.federation=fedadm"])


def test_a_bare_option_of_training_is_answered_with_its_path():
    with pytest.raises(ConfigError, match=r"learning_rate=1.*Did you mean steps\.NAME\.training\.learning_rate"):
        compose_run(["curriculum=smoke", "learning_rate=1"])


def test_a_short_form_is_never_an_option_of_the_step_itself():
    assert {"learning_rate", "epochs", "batch", "lr"} <= set(SHORT) and "rounds" not in SHORT


@pytest.mark.parametrize(("typed", "meant"), [("federated=fedavg", "federation"), ("adaptr=lora", "adapter")])
def test_a_misspelt_choice_for_every_step_is_answered_with_it(typed, meant):
    with pytest.raises(ConfigError, match=rf"Did you mean '{meant}'\?"):
        compose_run([typed])
