"""Adapters are lists of pieces, presets are names for such lists, and a registry's entries need no file."""

from __future__ import annotations

import pytest

from common.config.adapter import Adapter, LoraPart
from common.config.compose.presets import ADAPTERS, PIECES
from common.config.federation import FEDERATIONS, MeanFederation
from common.config.load import compose_run
from common.config.rules import broken_rules


def adapter_of(choice: str) -> Adapter:
    return compose_run(["curriculum=smoke", f"adapter@steps.tumour_ct.adapter={choice}"]).steps["tumour_ct"].adapter


def test_a_preset_is_its_list_of_pieces():
    for name in ("decoder_lora_pet", "lora_linear_pet", "scratch_pet", "pet_prognosis"):
        assert adapter_of(name) == adapter_of(f"[{','.join(ADAPTERS[name])}]"), name


def test_every_preset_names_known_pieces_and_every_piece_is_used_or_for_use():
    assert {piece for made_of in ADAPTERS.values() for piece in made_of} <= set(PIECES)
    assert not set(ADAPTERS) & set(PIECES)


def test_pieces_compose_in_their_order_and_a_later_one_changes_an_earlier_ones_part():
    made = adapter_of("[decoder,lora_image,pet_copy,linear_voxels]")
    assert list(made.parts) == ["decoder", "within", "stem_pet", "skip_pet"]
    assert made.parts["decoder"].style == "linear" and made.parts["stem_pet"].init == "copy"
    assert made.parts["within"] == LoraPart(sites=["image_attention"])


def test_one_adapters_options_are_not_anothers():
    changed = compose_run(["curriculum=smoke", "steps.tumour_ctpet.adapter.parts.decoder.features=4"])
    assert changed.steps["tumour_ct"].adapter.parts["decoder"].features == 8
    assert adapter_of("decoder").parts["decoder"].features == 8


def test_a_list_of_pieces_can_train():
    chosen = "adapter@steps.tumour_ctpet.adapter=[decoder,lora_image,pet]"
    assert broken_rules(compose_run(["curriculum=smoke", chosen])) == []


@pytest.mark.parametrize(("name", "proximal"), [("fedavg", 0.0), ("fedprox", 0.01)])
def test_fedavg_and_fedprox_weigh_by_cases_as_published(name, proximal):
    rule = compose_run(["curriculum=smoke", f"federation@steps.tumour_ct.federation={name}"]).steps["tumour_ct"]
    assert rule.federation == MeanFederation(weighting="n", proximal=proximal)


def test_every_rule_of_the_registry_is_a_choice_with_its_defaults():
    for kind in ("mean", "krum", "fedyogi"):
        step = compose_run(["curriculum=smoke", f"federation@steps.tumour_ct.federation={kind}"]).steps["tumour_ct"]
        assert step.federation == FEDERATIONS[kind]()
