"""A lineage as a MONAI bundle: another process with torch and MONAI alone says the same as predict, to the voxel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import peft
import pytest
import torch

from client.__main__ import main as client
from client.data.dataset import CaseSet
from client.data.layouts import find_cases
from common.backbones import load_backbone
from common.config.adapter import LoraPart
from common.config.load import run_to_yaml
from common.errors import BankError
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from server.__main__ import main as server
from server.bundle.write import write_bundle
from server.run.folder import RunFolder
from tests.helpers.small import federate, small_run

STEPS = ["tumour_ct", "tumour_ctpet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_centers):
    """A run of two segmentations whose masks hold something: random parts in the place of one round's."""
    asked = small_run(centers=["CHUM", "MDA"], rounds=1, steps=STEPS)
    folder = RunFolder(tmp_path_factory.mktemp("bundle") / "run")
    leader = federate(asked, folder.path, small_centers)
    folder.config.write_text(run_to_yaml(asked))
    for step in asked.steps.values():
        rng = torch.Generator().manual_seed(5)
        state = leader.bank.get(leader.bank.head(step.name))
        moved = {
            n: t + torch.randn(t.shape, generator=rng) / 3 if t.is_floating_point() else t for n, t in state.items()
        }
        leader.bank.commit(step, moved, base=leader.base)
    return folder, asked


def model_of(run, name):
    folder, asked = run
    bank = AdapterBank(folder.bank)
    entry = bank.entry(bank.head(name))
    model = AdaptedModel(load_backbone(asked.backbone), entry.step, seed=0)
    model.load(bank.get(entry.key))
    return model.eval(), entry


@pytest.mark.parametrize("name", STEPS)
def test_the_programs_logits_are_the_models(run, tmp_path, small_root, name):
    model, entry = model_of(run, name)
    out = write_bundle(run[0], name, tmp_path / "bundle")
    program = torch.export.load(out / "models" / "model.pt2").module()
    [case] = [case for case in find_cases(small_root) if case.patient == "CHUM-001"]
    [batch] = CaseSet([case], entry.step).all(1)
    with torch.no_grad():
        expected = model(batch.inputs, batch.present)
        found = program(torch.cat([batch.inputs[m] for m in entry.step.modalities], dim=1))
    assert (found - expected).abs().max() <= 1e-5 and expected.abs().max() > 0.1


def test_monai_alone_draws_the_mask_that_predict_draws(run, tmp_path, small_root):
    out = write_bundle(run[0], "tumour_ctpet", tmp_path / "bundle")
    files = {
        "CT": small_root / "imagesTr" / "CHUM-001__CT.nii.gz",
        "PET": small_root / "imagesTr" / "CHUM-001__PT.nii.gz",
    }
    for modality, path in files.items():
        (out / "input" / modality).mkdir(parents=True)
        shutil.copy(path, out / "input" / modality / "one.nii.gz")
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        "configs/inference.json",
        "--bundle_root",
        ".",
    ]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=200)  # fedgraft is not on its path
    assert done.returncode == 0, done.stderr[-2000:]
    [drawn] = (out / "output").rglob("*.nii.gz")
    words = ["--ct", str(files["CT"]), "--pet", str(files["PET"]), "--lineage", "tumour_ctpet", "--out", str(tmp_path)]
    assert client(["predict", "--bank", str(run[0].path), *words]) == 0
    expected, found = nib.load(tmp_path / "CHUM-001__tumour_ctpet.nii.gz"), nib.load(drawn)
    assert np.allclose(found.affine, expected.affine)
    a, b = (np.asarray(image.dataobj).squeeze() for image in (expected, found))
    for value in (1, 2):
        inside = (a == value).sum() + (b == value).sum()
        assert inside > 0 and 2 * ((a == value) & (b == value)).sum() / inside >= 0.99


def test_metadata_and_card_say_what_it_is_and_how_it_was_tested(run, tmp_path):
    out = write_bundle(run[0], "tumour_ctpet", tmp_path / "bundle")
    said = json.loads((out / "configs" / "metadata.json").read_text())
    image, pred = said["network_data_format"]["inputs"]["image"], said["network_data_format"]["outputs"]["pred"]
    assert image["channel_def"] == {"0": "CT", "1": "PET"} and image["spatial_shape"] == [16, 16, 16]
    assert pred["channel_def"] == {"0": "background", "1": "GTVp", "2": "GTVn"}
    card = (out / "docs" / "README.md").read_text()
    assert "Research use only" in card and AdapterBank(run[0].bank).head("tumour_ctpet") in card
    assert "nobody has tested this adapter" in card, "its state is not the one that the run tested"


def test_lora_is_pefts_own_where_it_is_pefts(tmp_path):
    from server.bundle.peft import write_peft

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


def test_what_is_no_bundle_is_said(run, tmp_path, capsys):
    with pytest.raises(BankError, match="Nothing was ever learned"):
        write_bundle(run[0], "lung", tmp_path / "bundle")
    (tmp_path / "there").mkdir()
    with pytest.raises(BankError, match="name a new folder"):
        write_bundle(run[0], "tumour_ct", tmp_path / "there")
    assert server(["export", str(run[0].path), "--out", str(tmp_path / "signed")]) == 2
    assert "--key FILE" in capsys.readouterr().err
