"""A lineage as a MONAI bundle: another process with torch and MONAI alone says the same as predict, to the voxel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import peft
import pytest
import torch
from scipy import ndimage

from client.__main__ import main as client
from client.data.case import Case
from client.data.images.volumes import prepare
from common.backbones import backbone_digest, load_backbone
from common.config.adapter import LoraPart
from common.config.load import run_to_yaml
from common.errors import BankError
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.__main__ import main as server
from server.bundle.card import RUN, score_lines
from server.bundle.check import check_against
from server.bundle.peft import write_peft
from server.bundle.write import write_bundle
from server.run.folder import RunFolder
from tests.helpers.small import small_run

STEP = "tumour_ctpet"
ALONE = (  # what the process without fedgraft does: the bundle as its card says, and the program on a prepared tensor
    "import importlib.util, torch\n"
    "assert not any(map(importlib.util.find_spec, ('client', 'common', 'server', 'simulations')))\n"
    f"{RUN}\n"
    "torch.save(torch.export.load('models/model.pt2').module()(torch.load('prepared.pt')), 'logits.pt')\n"
)


def made_run(path, *, seed=0):
    """A run of one segmentation that nobody trained: its decoder's weights are drawn, so that its masks hold something.

    A plain folder with the three things that a bundle is made of: configuration, bank and ledger.
    """
    asked = small_run(f"backbone.random_seed={seed}", centers=["CHUM", "MDA"], steps=[STEP])
    folder, step = RunFolder(path), asked.steps[STEP]
    path.mkdir(parents=True)
    folder.config.write_text(run_to_yaml(asked))
    backbone = load_backbone(asked.backbone)
    base, rng = backbone_digest(backbone), torch.Generator().manual_seed(5)
    state = AdaptedModel(backbone, step, seed=0).state()
    drawn = {n: t + torch.randn(t.shape, generator=rng) / 3 if t.is_floating_point() else t for n, t in state.items()}
    entry = AdapterBank(folder.bank).commit(step, drawn, base=base)
    Ledger(folder.ledger).append("run_started", {"run": "made", "base": base})
    return folder, asked, entry.key


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made")
    folder, asked, key = made_run(path / "run")
    return folder, asked, key, write_bundle(folder, STEP, path / "bundle")


def model_of(made):
    folder, asked, key, _ = made
    model = AdaptedModel(load_backbone(asked.backbone), asked.steps[STEP], seed=0)
    model.load(AdapterBank(folder.bank).get(key))
    return model.eval()


def two_patients(folder, small_root):
    """One on the view's own grid, and one whose CT and PET lie on other, finer grids beside one another."""
    files = {
        "CT": small_root / "imagesTr" / "CHUM-001__CT.nii.gz",
        "PET": small_root / "imagesTr" / "CHUM-001__PT.nii.gz",
    }
    rng, other = np.random.default_rng(3), {}
    for name, spacing, shape, scale in (("CT", (3, 3, 5), (40, 38, 24), 6000), ("PET", (4, 4, 4), (32, 30, 31), 60)):
        values = ndimage.gaussian_filter(rng.normal(size=shape), 3) * scale
        affine = np.diag([*map(float, spacing), 1.0])
        affine[:3, 3] = -2.0 if name == "PET" else 0.0
        other[name] = folder / f"other__{name}.nii.gz"
        nib.save(nib.Nifti1Image(abs(values) if name == "PET" else values, affine), other[name])
    return {"a": files, "b": other}


@pytest.mark.slow
def test_torch_and_monai_alone_answer_as_predict_does(made, tmp_path, small_root):
    folder, asked, _, bundle = made
    out = shutil.copytree(bundle, tmp_path / "bundle")
    patients = two_patients(tmp_path, small_root)
    for name, files in patients.items():
        for modality, path in files.items():
            (out / "input" / modality).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / "input" / modality / f"{name}.nii.gz")
    step = asked.steps[STEP]
    case = Case("x", "", patients["b"], None, {}, None, None, None, None)
    ours = prepare(case, view=step.view, modalities=step.modalities, with_label=False)
    prepared = torch.cat([ours.images[m] for m in step.modalities])[None]
    torch.save(prepared, out / "prepared.pt")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=out, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]

    inputs = {m: prepared[:, place : place + 1] for place, m in enumerate(step.modalities)}
    with torch.no_grad():
        expected = model_of(made)(inputs, {m: torch.ones(1, dtype=torch.bool) for m in inputs})
    assert (torch.load(out / "logits.pt") - expected).abs().max() <= 1e-5 and expected.abs().max() > 0.1
    for name, files in patients.items():
        words = ["--ct", str(files["CT"]), "--pet", str(files["PET"]), "--out", str(tmp_path / name)]
        assert client(["predict", "--bank", str(folder.path), "--lineage", STEP, *words]) == 0
        (answer,), (drawn,) = (tmp_path / name).glob("*.nii.gz"), (out / "output").glob(f"{name}_*.nii.gz")
        a, b = nib.load(answer), nib.load(drawn)
        assert np.allclose(a.affine, b.affine)
        a, b = (np.asarray(image.dataobj).squeeze() for image in (a, b))
        assert (a > 0).sum() > 20 and 2 * ((a == b) & (a > 0)).sum() / ((a > 0).sum() + (b > 0).sum()) >= 0.99


def test_metadata_and_card_say_what_it_is_and_that_nobody_tested_it(made):
    _, _, key, out = made
    said = json.loads((out / "configs" / "metadata.json").read_text())
    needed = "version changelog monai_version pytorch_version numpy_version task description authors copyright"
    assert {*needed.split(), "required_packages_version", "network_data_format"} <= said.keys()
    image, pred = said["network_data_format"]["inputs"]["image"], said["network_data_format"]["outputs"]["pred"]
    tensor = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"}
    assert tensor <= image.keys() and tensor <= pred.keys()
    assert image["channel_def"] == {"0": "CT", "1": "PET"} and image["spatial_shape"] == [16, 16, 16]
    assert pred["channel_def"] == {"0": "background", "1": "GTVp", "2": "GTVn"} and pred["num_channels"] == 3
    card = (out / "docs" / "README.md").read_text()
    assert "Research use only" in card and key in card and "Its base is tiny" in card and "Apache-2.0" in card
    assert "- never scored: nobody has tested this adapter on patients" in card


def test_a_card_has_the_test_score_of_each_center(made):
    folder, _, key, _ = made
    rows = [
        {"step": STEP, "task": STEP, "center": center, "mode": "CT+PET", "metric": "dsc_agg", "value": value, "n": n}
        for center, value, n in (("pooled", 0.61, 5), ("CHUM", 0.7, 2), ("MDA", 0.5, 3), ("HMR", None, 1))
    ]
    scored = {"step": STEP, "key": key, "primary": {STEP: "dsc_agg"}, "scores": rows, "evaluated_at": ["CHUM", "MDA"]}
    events = [{"kind": "step_finished", "time": "2026-11-28T12:00:00", **scored}]
    assert score_lines(events, AdapterBank(folder.bank).entry(key)) == [
        "tested: aggregated Dice 0.610 on 5 cases of CHUM, MDA (CT+PET), 2026-11-28",
        "CHUM (CT+PET): dsc_agg 0.700 on 2 cases",
        "MDA (CT+PET): dsc_agg 0.500 on 3 cases",
    ], "HMR has too few cases: no value left that hospital"


def test_a_bundle_is_checked_beside_its_run_and_another_base_is_one_sentence(made, tmp_path, capsys):
    folder, _, _, out = made
    assert check_against(out, folder) <= 1e-5
    other, _, _ = made_run(tmp_path / "other", seed=7)
    assert server(["verify", str(other.path), "--bundle", str(out)]) == 2
    said = capsys.readouterr().err
    assert "was learned on the frozen model" in said and "means nothing on another model" in said
    assert len(said.strip().splitlines()) == 1
    changed = shutil.copytree(out, tmp_path / "changed")
    with (changed / "models" / "adapter.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BankError, match=r"changed after it was exported: models/adapter\.safetensors"):
        check_against(changed, folder)


def test_lora_is_pefts_own_where_it_is_pefts(tmp_path):
    asked = small_run(steps=["tumour_ct"])
    step = asked.steps["tumour_ct"]
    step.adapter.parts["within"] = LoraPart(sites=["image_attention"], rank=2, rule="fedit")
    backbone = load_backbone(asked.backbone)
    model = AdaptedModel(backbone, step, seed=3)
    model.load({n: t + 0.1 if t.is_floating_point() else t for n, t in model.state().items()})
    [name] = write_peft(tmp_path, model, backbone)
    wrapped = peft.PeftModel.from_pretrained(load_backbone(asked.backbone), str(tmp_path / name)).eval()
    inputs, present = {"CT": torch.rand(1, 1, 16, 16, 16)}, {"CT": torch.ones(1, dtype=torch.bool)}
    with torch.no_grad():
        expected = model.encode(inputs, present).pyramid
        found = wrapped.base_model.model(inputs, present).pyramid
        plain = backbone(inputs, present).pyramid
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, found, strict=True))
    assert not all(torch.allclose(a, b, atol=1e-3) for a, b in zip(expected, plain, strict=True))


def test_what_is_no_bundle_is_said(made, tmp_path, capsys):
    folder = made[0]
    with pytest.raises(BankError, match="Nothing was ever learned"):
        write_bundle(folder, "lung", tmp_path / "bundle")
    (tmp_path / "there").mkdir()
    with pytest.raises(BankError, match="name a new folder"):
        write_bundle(folder, STEP, tmp_path / "there")
    assert server(["export", str(folder.path), "--out", str(tmp_path / "signed")]) == 2
    assert "--key FILE" in capsys.readouterr().err
