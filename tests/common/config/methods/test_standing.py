"""What a step may stand on: an earlier step of which something can be merged, else one sentence."""

import pytest

from common.config.adapter import LoraPart
from common.config.load import compose_run, step_from_json, step_to_json
from common.config.rules import broken_rules
from common.errors import ConfigError
from simulations.comparison.comparing import prepare


def a_run(**changes):
    run = compose_run(["curriculum=quickstart", "backbone=tiny"])
    run.steps = {name: run.steps[name] for name in ("tumour_ct", "tumour_ctpet")}
    first, second = run.steps.values()
    first.adapter.parts["inside"] = LoraPart(sites=["image_attention"])
    second.starts_from, second.stands_on = None, "tumour_ct"
    for name, value in changes.items():
        setattr(first, name, value)
    return run


def test_an_earlier_trained_step_with_lora_may_be_stood_on():
    assert broken_rules(a_run()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.steps["tumour_ct"].__setattr__("stands_on", "tumour_ct"), "which is not an earlier step"),
        (lambda run: run.steps["tumour_ct"].__setattr__("stands_on", "tumour_ctpet"), "which is not an earlier step"),
        (lambda run: run.steps["tumour_ct"].adapter.parts.pop("inside"), "of which nothing is inside the frozen model"),
        (lambda run: run.steps["tumour_ct"].__setattr__("rounds", 0), "which is never trained"),
        (lambda run: setattr(run.steps["tumour_ct"].adapter.parts["inside"], "dora", True), "scales rows"),
    ],
)
def test_what_cannot_be_stood_on_is_one_sentence(change, said):
    run = a_run()
    change(run)
    found = [problem for problem in broken_rules(run) if "stands on" in problem]
    assert len(found) == 1 and said in found[0]


def test_a_step_on_the_model_as_it_is_keeps_the_text_and_so_the_key_of_earlier_releases():
    first, second = a_run().steps.values()
    assert "stands_on" not in step_to_json(first) and step_from_json(step_to_json(second)) == second
    assert '"stands_on":"tumour_ct"' in step_to_json(second)


def test_a_comparison_says_that_its_arms_cannot_stand_on_a_grown_base_yet():
    overrides = ["curriculum=quickstart", "adapter@steps.tumour_ct.adapter=decoder_lora"]
    with pytest.raises(ConfigError, match="cannot yet give each arm a base of its own"):
        prepare([*overrides, "steps.tumour_ctpet.starts_from=null", "steps.tumour_ctpet.stands_on=tumour_ct"])
