"""predict: masks lie on the CT's own grid, and a bank alone is enough."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from client.__main__ import main
from client.predict import mask_on
from common.backbones import load_backbone
from common.bank import AdapterBank
from common.config.load import run_to_yaml
from common.model import AdaptedModel
from server.export import export
from tests.small import adapters, federate, small_run, write_centers


@pytest.fixture(scope="module")
def bank(tmp_path_factory, small_root):
    folder = tmp_path_factory.mktemp("bank")
    files = write_centers(folder / "centers", small_root, ["CHUM", "CHUP"])
    steps = ["tumour_ct", "tumour_ctpet", "relapse_ct"]
    run = small_run("with_controls=true", centers=["CHUM", "CHUP"], rounds=1, steps=steps)
    leader = federate(run, folder / "run", files)
    leader.folder.config.write_text(run_to_yaml(run))
    assert set(adapters(leader)) == set(steps)
    return leader.folder


def predict(bank, out, *words):
    return main(["predict", "--bank", str(bank), "--out", str(out), *words])


def test_every_case_of_a_folder_gets_a_mask_on_its_own_ct(tmp_path, bank, small_root):
    assert predict(bank.path, tmp_path, "--folder", str(small_root)) == 0
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len(found) == 22 and set(found["CHUM-001"]) == {"tumour_ctpet", "relapse_ct"}
    mask = nib.load(tmp_path / found["CHUM-001"]["tumour_ctpet"]["mask"])
    ct = nib.load(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert mask.shape == ct.shape and np.array_equal(mask.affine, ct.affine) and mask.get_data_dtype() == np.uint8
    volumes = found["CHUM-001"]["tumour_ctpet"]["milliliters"]
    counts = np.bincount(np.asarray(mask.dataobj).ravel(), minlength=3) * 6.0**3 / 1000
    assert volumes == {"GTVp": pytest.approx(counts[1], abs=1e-3), "GTVn": pytest.approx(counts[2], abs=1e-3)}
    relapse = found["CHUM-001"]["relapse_ct"]
    assert 0 <= relapse["risk"] <= 1 and np.all(np.diff(relapse["relapse_free"]) <= 0)
    assert relapse["risk"] == pytest.approx(1 - np.mean(relapse["relapse_free"])) and relapse["days"][-1] == 1825


def test_a_case_without_pet_gets_the_head_that_needs_none(tmp_path, bank, small_root):
    ct = small_root / "imagesTr" / "CHUM-001__CT.nii.gz"
    assert predict(bank.bank, tmp_path, "--ct", str(ct)) == 0
    assert set(json.loads((tmp_path / "predictions.json").read_text())["CHUM-001"]) == {"tumour_ct", "relapse_ct"}


def test_an_exported_folder_is_checked_before_it_is_used(tmp_path, bank, small_root, capsys):
    manifest = export(bank, tmp_path / "adapters", key=tmp_path / "key")
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert predict(tmp_path / "adapters", tmp_path / "out", "--ct", ct) == 0
    assert predict(tmp_path / "adapters", tmp_path / "out", "--ct", ct, "--signer", "0" * 64) == 2
    assert "not by 0000" in capsys.readouterr().err
    next((manifest.parent / "bank").rglob("state.safetensors")).write_bytes(b"")
    assert predict(tmp_path / "adapters", tmp_path / "out", "--ct", ct) == 2
    assert "was changed after it was signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--ct", "a.nii.gz", "--folder", "b"], "Name one CT with --ct"),
        (["--ct", "a.nii.gz", "--region", "chest"], "The bank learned nothing for chest from CT; it has"),
        (["--ct", "a.nii.gz", "--lineage", "hpv"], "Nothing was ever learned for 'hpv'. Learned: relapse_ct"),
        (["--ct", "a.nii.gz"], "The CT file is missing, corrupt or truncated"),
        (["--ct", "a.nii.gz", "--signer", "ab"], "is not signed"),
    ],
)
def test_what_cannot_be_predicted_is_said(tmp_path, bank, words, sentence, capsys):
    assert predict(bank.path, tmp_path, *words) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_that_is_no_bank_is_named(tmp_path, capsys):
    assert predict(tmp_path, tmp_path, "--ct", "a.nii.gz") == 2 and "is no adapter bank" in capsys.readouterr().err


def test_an_unknown_frozen_model_is_named(tmp_path, small_root, capsys):
    run = small_run(steps=["tumour_ct"])
    state = AdaptedModel(load_backbone(run.backbone), run.steps["tumour_ct"], seed=1).state()
    AdapterBank(tmp_path / "bank").commit(run.steps["tumour_ct"], state, base="f" * 64)
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert predict(tmp_path, tmp_path, "--ct", ct) == 2
    assert "frozen model ffffffffffff, which is not mini or tiny; name its weights" in capsys.readouterr().err


def test_an_identity_grid_gives_the_labels_back(tmp_path):
    labels = torch.randint(0, 3, (5, 6, 7), generator=torch.Generator().manual_seed(0))  # (z, y, x)
    probabilities = torch.nn.functional.one_hot(labels, 3).permute(3, 0, 1, 2).float().numpy()
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(np.zeros((7, 6, 5), np.int16), affine), tmp_path / "ct.nii")
    mask, voxel_ml = mask_on(probabilities, affine, tmp_path / "ct.nii")
    assert np.array_equal(mask, labels.numpy().transpose(2, 1, 0)) and voxel_ml == pytest.approx(0.024)


def test_a_flipped_ct_that_reaches_beyond_the_grid_gets_its_mask_in_place(tmp_path):
    """The grid lies inside the CT, whose first axis runs to the left: the mask has the file's own order."""
    probabilities = np.zeros((2, 4, 4, 4), np.float32)
    probabilities[0] = 1
    probabilities[:, 1, 2, 3] = (0, 1)  # x 3, y 2, z 1 of the grid
    grid = np.eye(4)
    grid[:3, 3] = (10, 10, 10)  # so that voxel lies at (13, 12, 11) mm
    flipped = np.array([[-1.0, 0, 0, 29], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.zeros((30, 28, 26), np.int16), flipped), tmp_path / "ct.nii")
    mask, _ = mask_on(probabilities, grid, tmp_path / "ct.nii")
    assert np.argwhere(mask).tolist() == [[29 - 13, 12, 11]]


def test_a_ct_that_the_grid_never_touches_is_background(tmp_path):
    far = np.eye(4)
    far[:3, 3] = 500
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.int16), np.eye(4)), tmp_path / "ct.nii")
    mask, _ = mask_on(np.stack([np.zeros((4, 4, 4)), np.ones((4, 4, 4))]).astype(np.float32), far, tmp_path / "ct.nii")
    assert mask.shape == (5, 5, 5) and not mask.any()
