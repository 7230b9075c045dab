"""Sizes: published counts come out of the meta device, and docs/results/sizes.md says what the command says."""

import json
import re
from pathlib import Path

import pytest
import torch

from common.backbones import build_backbone, load_backbone
from common.config.load import compose_run
from common.config.run import BackboneSpec
from common.errors import FedgraftError, UnknownName
from common.model.adapted import AdaptedModel
from server.__main__ import main
from server.sizes.inspection import pemma_rows, sizes_page
from server.sizes.sizes import backbone_sizes, choices, parameter_count, released_sizes, tensor_bytes

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "ct_clip": BackboneSpec(random_seed=0),
    "swin_unetr": BackboneSpec(kind="swin_unetr", config="small", random_seed=0),
    "tiny": BackboneSpec(kind="tiny"),
    "unetr": BackboneSpec(kind="unetr", config="small", random_seed=0),
}


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_meta_counts_are_those_of_real_tensors(spec):
    sizes, backbone = backbone_sizes(spec), load_backbone(spec)

    assert (sizes.parameters, sizes.bytes) == (parameter_count(backbone), tensor_bytes(backbone))
    assert sizes.levels == backbone.levels
    assert {name: site.pattern for name, site in sizes.sites.items()} == backbone.sites
    for name, step in choices(backbone).items():
        if sizes.choices[name].reason:
            with pytest.raises(FedgraftError, match=re.escape(sizes.choices[name].reason)):
                AdaptedModel(backbone, step, seed=0)
            continue
        state = AdaptedModel(backbone, step, seed=0).state()
        sent = sum(4 * t.numel() for key, t in state.items() if key.partition("/")[0] in step.adapter.parts)
        assert sizes.choices[name].bytes == sent, name
        assert sizes.choices[name].share == pytest.approx(sent / (sent + 4 * sizes.parameters))


@pytest.fixture(scope="module")
def page():
    """The page, and the devices on which its models' weights were drawn."""
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "normal_", lambda self, *a, **k: drawn.append(self.device) or self)
        return sizes_page(), drawn


def test_nothing_is_allocated_for_models_of_a_gigabyte(page):
    text, drawn = page
    assert "| CT-CLIP (CTViT and CXR-BERT): frozen encoder |" in text
    assert drawn
    assert torch.empty(0).device not in drawn


def test_pemmas_parts_weigh_what_its_code_weighs():
    totals = {name.split(":")[0].strip("*"): (count, share) for name, count, share in pemma_rows() if "all of" in name}
    assert totals == {  # FACTS C1 and C2, measured by building the authors' modules
        "UNETR fs16": ("**3,467,200**", "**3.74%**"),
        "UNETR fs48": ("**3,523,392**", "**3.05%**"),
        "Swin UNETR fs48": ("**267,264**", "**0.43%**"),
    }


def test_the_page_is_what_the_command_prints(page):
    assert (ROOT / "docs" / "results" / "sizes.md").read_text() == page[0]


def test_a_runs_steps_on_the_released_model():
    run = compose_run(["curriculum=quickstart"])
    found = released_sizes(run)

    with torch.device("meta"):
        released = build_backbone(BackboneSpec(kind="ct_clip", config="released"))
    assert found["released_model_bytes"] == tensor_bytes(released) > 1e9
    assert set(found["released_bytes"]) == {name for name, step in run.steps.items() if step.adapter.parts}


def test_inspect_prints_a_backbone_its_sites_and_every_choice(capsys):
    assert main(["inspect", "backbone=unetr_small"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("unetr small: ")
    assert r"layers\.(\d+)\.attn\.(?:to_q|to_v)" in text
    assert "DoRA r=8, all image sites" in text
    assert "step of the curriculum" not in text

    assert main(["inspect", "--json", "backbone=unetr_small", "curriculum=smoke"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["choices"]["everything"] == {
        "parameters": found["parameters"], "bytes": 4 * found["parameters"], "share": 1.0, "reason": ""
    }  # fmt: skip
    assert set(found["steps"])


def test_a_step_that_does_not_fit_says_why(capsys):
    assert main(["inspect", "backbone=unetr_small", "curriculum=quickstart"]) == 0
    assert "Unknown site 'text_attention'. Known: image_attention" in capsys.readouterr().out


def test_inspect_prints_the_digest_that_a_spec_may_ask_for(capsys):
    assert main(["inspect", "--digest", "backbone=unetr_small"]) == 0
    digest = capsys.readouterr().out.strip()
    assert main(["inspect", "--digest", "backbone=unetr_small", "backbone.random_seed=1"]) == 0
    assert len(digest) == 64
    assert digest != capsys.readouterr().out.strip()


def test_an_unknown_configuration_is_refused_in_a_sentence():
    with pytest.raises(UnknownName, match=r"Unknown backbone configuration 'huge'\. Known: base, small"):
        backbone_sizes(BackboneSpec(kind="swin_unetr", config="huge"))
