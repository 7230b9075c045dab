"""One patient in a container of HECKTOR 2026: the mask is predict's own, on the CT's grid, as ITK reads it."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import torch

from client.__main__ import main
from client.challenge.interface import MASK, T_STAGE
from client.challenge.metaimage import read_mha
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run, run_to_yaml
from common.config.view import View
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from tests.helpers.small import SPACING, small_run

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_image(path, nifti):
    """A NIfTI file as ITK would write it, uncompressed."""
    image = nib.load(nifti)
    values, affine = np.asarray(image.dataobj), LPS @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    kind = {"i2": "MET_SHORT", "f4": "MET_FLOAT"}[values.dtype.str[1:]]
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "CompressedData = False"]
    lines.append("TransformMatrix = " + " ".join(map(str, (affine[:3, :3] / spacing).T.ravel())))
    lines.append("Offset = " + " ".join(map(str, affine[:3, 3])))
    lines.append("ElementSpacing = " + " ".join(map(str, spacing)))
    lines += [f"DimSize = {' '.join(map(str, values.shape))}", f"ElementType = {kind}", "ElementDataFile = LOCAL"]
    path.parent.mkdir(parents=True)
    path.write_bytes(("\n".join(lines) + "\n").encode() + np.ascontiguousarray(values.transpose(2, 1, 0)).tobytes())


def make_bank(folder):
    """Two heads whose decoders nobody trained, their weights drawn: of tumor and nodes, and of the T stage."""
    asked = small_run(steps=["tumour_ctpet"])
    stage = compose_run(["curriculum=diagnosis", "task@steps.hpv.task=t_stage", "backbone=tiny"]).steps["hpv"]
    stage.view, stage.starts_from = View([SPACING] * 3, [16] * 3, [16] * 3, crop="center"), None
    folder.mkdir()
    (folder / "config.yaml").write_text(run_to_yaml(asked))
    backbone = load_backbone(asked.backbone)
    rng = torch.Generator().manual_seed(5)
    for step in (asked.steps["tumour_ctpet"], stage):
        state = AdaptedModel(load_backbone(asked.backbone), step, seed=0).state()
        drawn = {
            n: t + torch.randn(t.shape, generator=rng) / 3 if t.is_floating_point() else t for n, t in state.items()
        }
        AdapterBank(folder / "bank").commit(step, drawn, base=backbone_digest(backbone))
    return folder


def test_a_patient_is_answered_where_the_challenge_looks(tmp_path, small_root, capsys):
    bank = make_bank(tmp_path / "run")
    ct, pet = (small_root / "imagesTr" / f"CHUM-001__{name}.nii.gz" for name in ("CT", "PT"))
    write_image(tmp_path / "input" / "images" / "ct" / "a.mha", ct)
    write_image(tmp_path / "input" / "images" / "pet" / "a.mha", pet)
    (tmp_path / "input" / "ehr.json").write_text(json.dumps({"Age": 60, "Gender": 1, "Tobacco Consumption": 99}))
    folders = ["--input", str(tmp_path / "input"), "--output", str(tmp_path / "output")]
    assert main(["challenge", "--bank", str(bank), *folders]) == 1
    told = capsys.readouterr().out
    assert "ehr.json: tobacco consumption is not 0 or 1; it is left out." in told
    assert "the bank learned no answer for n-stage.json, rfs.json" in told

    words = ["--ct", str(ct), "--pet", str(pet), "--lineage", "tumour_ctpet", "--out", str(tmp_path / "out")]
    assert main(["predict", "--bank", str(bank), *words]) == 0
    expected = nib.load(tmp_path / "out" / "CHUM-001__tumour_ctpet.nii.gz")
    mask, affine = read_mha(tmp_path / "output" / MASK)
    assert mask.any() and (mask == np.asarray(expected.dataobj)).all() and (affine == expected.affine).all()
    assert json.loads((tmp_path / "output" / T_STAGE).read_text()) in ("T1", "T2", "T3", "T4")
