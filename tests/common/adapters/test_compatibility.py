"""Which parts a case reaches, and which parts cannot stand together: from the declaration alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.adapters.compatibility import RESERVED, misfits, reached
from common.config.adapter import Adapter, DecoderPart, FusionPart, JoinPart, PatchEmbedPart, SkipPart, StandInPart
from common.config.load import compose_run
from common.config.step import Step
from common.config.task import SegmentationTask

PEMMA = compose_run(["curriculum=pemma"]).steps["mda"].adapter.parts
ALWAYS = {"decoder", "head", "within"}


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        ({"CT"}, {"alone_ct", "join"}),
        ({"PET"}, {"alone_pet", "join", "skip_pet", "stem_pet"}),
        ({"CT", "PET"}, {"join", "skip_pet", "stem_pet"}),
        ({"EHR"}, set()),
    ],
)
def test_a_case_reaches_the_parts_of_its_modalities(shown, wanted):
    assert reached(PEMMA, shown) == ALWAYS | wanted


@given(st.sets(st.sampled_from(["CT", "PET", "EHR"])), st.sets(st.sampled_from(["CT", "PET", "EHR"])))
def test_a_stand_in_works_for_one_image_alone_and_pet_parts_for_pet(first, second):
    for shown in (first, second):
        found = reached(PEMMA, shown)
        assert ("alone_ct" in found) == (shown & {"CT", "PET"} == {"CT"})
        assert ("alone_pet" in found) == (shown & {"CT", "PET"} == {"PET"})
        assert ("stem_pet" in found) == ("skip_pet" in found) == ("PET" in shown)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"j": JoinPart()}, "a join part needs a patch_embed part for PET"),
        ({"s": PatchEmbedPart(place="beside"), "j": JoinPart()}, "keeps two; choose one"),
        ({"a": StandInPart()}, "a stand_in part works in front of a join part"),
        ({"s": PatchEmbedPart(place="under")}, "part 's' has place 'under'; it can be add or beside"),
        ({"s": PatchEmbedPart(), "t": PatchEmbedPart()}, "2 patch_embed parts for PET, at most one fits"),
        ({"f": FusionPart(mode="sum")}, "part 'f' has mode 'sum'; it can be attention or mlp"),
        ({"d": DecoderPart(style="linear"), "s": SkipPart()}, "part 's', a skip, needs a decoder part with a skip"),
        ({"d": DecoderPart(style="dense")}, "part 'd' has style 'dense'; it can be auto, light, linear, unetr"),
    ],
)
def test_what_cannot_stand_together_is_said(parts, sentence):
    decoder = {} if any(isinstance(part, DecoderPart) for part in parts.values()) else {"decoder": DecoderPart()}
    step = Step("s", SegmentationTask(), ["CT", "PET"], adapter=Adapter({**decoder, **parts}))
    assert any(sentence in problem for problem in misfits(step)), misfits(step)


def test_every_adapter_of_the_configuration_fits_its_steps():
    for curriculum in ("unicon", "pemma", "quickstart"):
        for step in compose_run([f"curriculum={curriculum}"]).steps.values():
            assert misfits(step) == []


def test_no_part_can_take_a_name_that_torch_uses():
    assert {name for name in dir(nn.ModuleDict) if not name.startswith("_")} <= RESERVED
