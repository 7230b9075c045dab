"""Real sizes are timed as whole training steps, only where a person asked for a CPU or has a GPU."""

import json

import pytest
import torch

from common.backbones import build_backbone
from common.config.adapter import DecoderPart, LoraPart
from common.config.run import BackboneSpec
from common.errors import UnknownName
from server.sizes.sizes import backbone_sizes
from simulations.__main__ import main
from simulations.benchmarks import sizes as module
from simulations.benchmarks.sizes import REAL, Case, bench_sizes, sizes_table

SMALL = {
    "small": Case(
        BackboneSpec(kind="unetr", config="small", random_seed=0),
        (16, 16, 16),
        {"within": LoraPart(sites=["image_query_value"], rank=4), "decoder": DecoderPart(features=2)},
    )
}


def test_a_case_is_timed_and_counted(tmp_path):
    found = bench_sizes(tmp_path / "sizes.json", cases=SMALL, cpu=True, repeats=2, say=lambda _: None)

    case = found["cases"]["small"]
    assert json.loads((tmp_path / "sizes.json").read_text())["cases"]["small"]["train_ms"] == case["train_ms"]
    assert case["train_ms"] > case["infer_ms"] > 0
    assert case["frozen_parameters"] == backbone_sizes(SMALL["small"].backbone).parameters
    assert case["peak_mb"] > 100
    assert sizes_table(found).row_count == 1


def test_every_step_trains_and_inference_does_not(tmp_path, monkeypatch):
    states = []
    original = module._median_ms
    models = []
    build = module._model
    monkeypatch.setattr(module, "_model", lambda *a: models.append(build(*a)) or models[-1])

    def spy(work, device, repeats):
        before = models[0].state()
        original(work, device, repeats)
        after = models[0].state()
        states.append(any(not torch.equal(before[name], after[name]) for name in before))
        return 1.0

    monkeypatch.setattr(module, "_median_ms", spy)
    bench_sizes(tmp_path / "sizes.json", cases=SMALL, cpu=True, repeats=1, say=lambda _: None)
    assert states == [True, False]


def test_without_a_gpu_the_real_sizes_must_be_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "sizes", "--out", str(tmp_path / "sizes.json")]) == 2
    assert "There is no GPU here" in capsys.readouterr().err
    with pytest.raises(UnknownName, match=r"Known: ct_clip, swin_unetr_fs48, unetr_fs16, unetr_fs48"):
        bench_sizes(tmp_path / "sizes.json", only=["unetr_fs24"], cpu=True)


def test_real_cases_fit_their_backbones():
    for name, case in REAL.items():
        with torch.device("meta"):
            backbone = build_backbone(case.backbone)
        assert all(side % m == 0 for side, m in zip(case.size, backbone.multiple, strict=True)), name
        assert case.size == backbone.native.size
        assert set(case.parts["within"].sites) <= set(backbone.sites)
