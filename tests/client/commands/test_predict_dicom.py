"""predict --dicom: from a PACS export to objects in the same examinations, and what is refused in one sentence."""

import json
from argparse import Namespace

import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom import dcmread

from client.__main__ import main
from client.commands.predict import _dicom_cases
from client.data.layouts import find_cases
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.task import PrognosisTask, SegmentationTask
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from simulations.phantom.dicom import Visit, export_case, export_cohort
from tests.helpers.small import small_run

BACKBONE = load_backbone(compose_run(["backbone=tiny"]).backbone)


def step_of(name, task):
    run = small_run("with_controls=true", steps=["tumour_ct", "relapse_ct"])
    step = run.steps["relapse_ct" if isinstance(task, PrognosisTask) else "tumour_ct"]
    step.name, step.task = name, task
    return step


def bank_of(folder, *steps):
    """A bank of steps whose parts are random, so that masks hold something everywhere."""
    for step in steps:
        rng = torch.Generator().manual_seed(4)
        state = AdaptedModel(BACKBONE, step, seed=1).state()
        moved = {name: value + torch.randn(value.shape, generator=rng) / 2 for name, value in state.items()}
        AdapterBank(folder / "bank").commit(step, moved, base=backbone_digest(BACKBONE))
    return folder


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    steps = step_of("tumour", SegmentationTask()), step_of("relapse", PrognosisTask())
    return bank_of(tmp_path_factory.mktemp("bank"), *steps)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory, small_root):
    folder = tmp_path_factory.mktemp("pacs")
    export_cohort([case for case in find_cases(small_root) if case.center == "HMR"][:2], folder)
    return folder


def predict(bank, out, *words):
    return main(["predict", "--bank", str(bank), "--out", str(out), *map(str, words)])


def test_masks_and_risks_of_an_export_stand_in_its_examinations(tmp_path, bank, pacs):
    assert predict(bank, tmp_path, "--dicom", pacs) == 0
    said = json.loads((tmp_path / "predictions.json").read_text())
    assert sorted(said) == ["case-001", "case-002"] and not list(tmp_path.glob(".scans-*"))
    of_ct = {str(one.SeriesInstanceUID): one for path in pacs.rglob("*") if path.is_file() for one in [dcmread(path)]}
    for name, answers in said.items():
        seg, planned = (dcmread(tmp_path / part) for part in answers["tumour"]["dicom"])
        [written] = answers["relapse"]["dicom"]
        for one in (seg, planned, dcmread(tmp_path / written)):
            ct = of_ct[answers["series"]]
            assert (one.PatientID, one.StudyInstanceUID) == (ct.PatientID, ct.StudyInstanceUID)
        assert seg.FrameOfReferenceUID == planned.FrameOfReferenceUID == of_ct[answers["series"]].FrameOfReferenceUID
        mask = nib.load(tmp_path / f"{name}__tumour.nii.gz")
        voxels = {s.SegmentLabel: 0 for s in seg.SegmentSequence}
        labels = {s.SegmentNumber: s.SegmentLabel for s in seg.SegmentSequence}
        frames = np.reshape(seg.pixel_array, (-1, seg.Rows, seg.Columns))
        for frame, place in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
            label = labels[place.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
            voxels[label] += int(frame.sum())
            x, y, z = place.PlanePositionSequence[0].ImagePositionPatient  # LPS; the NIfTI's axes point to RAS
            i, j, k, _ = np.rint(np.linalg.solve(mask.affine, [-x, -y, z, 1.0])).astype(int)
            flat = np.asarray(mask.dataobj)[:, :, k]
            assert (i, j) == (0, 0)
            assert np.array_equal(frame.T > 0, flat == {"GTVp": 1, "GTVn": 2}[label])
        values = np.asarray(mask.dataobj)
        assert voxels == {s: int((values == v).sum()) for s, v in (("GTVp", 1), ("GTVn", 2)) if (values == v).any()}


def test_a_series_of_mixed_geometry_costs_that_patient_only(tmp_path, bank, pacs, small_root, capsys):
    folder = tmp_path / "pacs"
    cases = [case for case in find_cases(small_root) if case.center == "HMR"][:2]
    for number, case in enumerate(cases):
        export_case(case, folder / str(number), Visit(patient=str(number)))
    one = sorted(path for path in (folder / "0").rglob("*") if path.is_file() and dcmread(path).Modality == "CT")[0]
    header = dcmread(one)
    header.PixelSpacing = [7.0, 7.0]
    header.save_as(one)
    assert predict(bank, tmp_path / "out", "--dicom", folder) == 1
    said = json.loads((tmp_path / "out" / "predictions.json").read_text())
    sentence = "The CT series mixes slices of different pixel spacing; export one reconstruction."
    assert said["case-001"] == {"refused": sentence} and "tumour" in said["case-002"]
    assert f"case-001: refused: {sentence}" in capsys.readouterr().out


def test_a_structure_without_a_code_stops_before_anything_is_written(tmp_path, pacs, capsys):
    bank_of(tmp_path, step_of("lung", SegmentationTask(structures=["lungs"])))
    assert predict(tmp_path, tmp_path / "out", "--dicom", pacs) == 2
    assert "The structure 'lungs' has no code" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
    codes = tmp_path / "codes.yaml"
    codes.write_text("lungs: {category: [91723000, SCT, Anatomical Structure], type: [39607008, SCT, Lung]}")
    assert predict(tmp_path, tmp_path / "out", "--dicom", pacs, "--codes", codes) == 0


def test_files_and_dicom_at_once_are_refused(tmp_path, bank, pacs, capsys):
    assert predict(bank, tmp_path, "--dicom", pacs, "--ct", "a.nii.gz") == 2
    assert "either DICOM series with --dicom, or files" in capsys.readouterr().err


def test_series_without_a_patients_number_are_one_case_for_each_study(tmp_path, small_root):
    one, two, three = [case for case in find_cases(small_root) if case.center == "HMR"][:3]
    export_cohort([one], tmp_path)
    for number, case in enumerate((two, three), start=2):
        export_case(case, tmp_path / str(number), Visit(patient="", date=f"20240{number}05"))
    cases = _dicom_cases(Namespace(dicom=tmp_path, ct=None, pet=None, folder=None))
    assert [case.name for case in cases] == ["case-001", "case-002", "case-003"]
    assert [len({series.study for series in case.series}) for case in cases] == [1, 1, 1]
