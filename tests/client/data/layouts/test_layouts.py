"""The same images in every layout are the same cases and tensors; what does not add up is said, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from client.data.images.volumes import prepare
from client.data.layouts import READERS, contents, find_cases, layout_kind, survey
from common.config.view import View
from common.errors import DataError, UnknownName
from tests.helpers.layouts import DECLARED, NUMBER, SIZES, in_brats, in_declared, in_hecktor, in_nnunet
from tests.helpers.small import save

VIEW = View(spacing_mm=[6.0] * 3, size=None, window=[16, 16, 16], crop="none")
LAYOUTS = {
    "nnunet": in_nnunet,
    "declared": in_declared,
    "brats": in_brats,
}


@pytest.fixture(scope="module")
def hecktor(tmp_path_factory) -> Path:
    return in_hecktor(tmp_path_factory.mktemp("layouts") / "hecktor")


def plain(name: str) -> str:
    return name.replace("_", "-")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_same_images_give_the_same_cases_and_tensors(hecktor, tmp_path, kind):
    root = LAYOUTS[kind](hecktor, tmp_path / kind)
    assert layout_kind(root) == kind
    theirs = {case.patient: case for case in find_cases(hecktor)}
    ours = {plain(case.patient): case for case in find_cases(root)}
    assert ours.keys() == theirs.keys()
    for patient, case in ours.items():
        names = ["edema"] if kind == "brats" else ["GTVp", "GTVn"]
        found = prepare(case, view=VIEW, modalities=list(case.images), structures=names)
        wanted = prepare(theirs[patient], view=VIEW, modalities=["CT", "PET"])
        assert torch.equal(found.mask, wanted.mask if kind != "brats" else (wanted.mask == 2).to(torch.uint8))
        if kind == "brats":  # CT stands as T1 and PET as FLAIR, which are scaled otherwise
            assert (np.array(case.images["T1"].read_bytes()) == theirs[patient].images["CT"].read_bytes()).all()
            assert case.center == f"C{NUMBER[theirs[patient].center]}"
        else:
            assert {m: torch.equal(found.images[m], wanted.images[m]) for m in ("CT", "PET")} == {"CT": 1, "PET": 1}
            assert (found.affine == wanted.affine).all() and case.center == theirs[patient].center


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_named_center_has_its_own_cases_only(hecktor, tmp_path, kind):
    root = LAYOUTS[kind](hecktor, tmp_path / kind)
    code = f"C{NUMBER['MDA']}" if kind == "brats" else "MDA"
    assert [plain(case.patient)[:3] for case in find_cases(root, center=code)] == ["MDA"] * SIZES["MDA"]
    with pytest.raises(DataError, match=r"Center 'MDB' has no case under .*; centers there: "):
        find_cases(root, center="MDB")


def test_the_finding_is_one_line(hecktor, tmp_path):
    found, cases = contents(in_nnunet(hecktor, tmp_path / "nnunet"))
    assert found.said == (
        "nnunet layout: 11 cases of 3 centers (CHUM 4, HMR 3, MDA 4); CT, PET on the CT's grid; 11 labels of GTVp, GTVn"
    )
    assert len(cases) == 11 and contents(hecktor)[0].said.startswith("hecktor layout: 11 cases")


def test_readers_share_one_signature_and_unknown_names_list_them(hecktor):
    assert sorted(READERS) == list(READERS)
    with pytest.raises(UnknownName, match=r"Unknown layout 'nnUNet'.*Did you mean 'nnunet'"):
        find_cases(hecktor, layout="nnUNet")


# ----------------------------------------------------------------------------------------------------------- nnU-Net


def test_nnunet_tells_missing_cases_and_reads_centers_from_a_table(hecktor, tmp_path):
    root = in_nnunet(hecktor, tmp_path / "nnunet", numTraining=12)
    assert contents(root)[0].notes == ("'dataset.json' promises 12 training cases and there are 11.",)
    names = sorted(path.name.removesuffix("_0000.nii.gz") for path in (root / "imagesTr").glob("*_0000.nii.gz"))
    rows = [f"{name},{'North' if i % 2 else 'South'}" for i, name in enumerate(names)]
    (root / "centers.csv").write_text("\n".join(["case,center", *rows]) + "\n")
    assert contents(root)[0].centers == {"North": 5, "South": 6}
    (root / "centers.csv").write_text("\n".join(["case,center", *rows[1:]]) + "\n")
    assert survey(root)[1] == ["1 case has no center that 'centers.csv' tells; complete it."]


def test_nnunet_of_one_hospital_needs_no_center_in_its_names(hecktor, tmp_path):
    root = in_nnunet(hecktor, tmp_path / "nnunet")
    for path in [*root.glob("*/CHUM_*"), *root.glob("*/HMR_*")]:
        path.unlink()
    assert {case.center for case in find_cases(root, center="KUH")} == {"KUH"}
    assert {case.center for case in find_cases(root)} == {"ONE"}


def test_nnunet_regions_and_ignore_become_nested_structures(hecktor, tmp_path):
    labels = {"background": 0, "whole tumor": [1, 2], "GTVn": 2, "ignore": 3}
    root = in_nnunet(hecktor, tmp_path / "nnunet", labels=labels)
    case = find_cases(root)[0]
    assert case.structures == {"whole_tumor": (1, 2), "GTVn": (2,)} and case.ignore == 3
    volume = np.zeros((16, 16, 16), np.uint8)
    volume[2:8, 2:8, 2:8], volume[4:6, 4:6, 4:6], volume[12:, :, :] = 1, 2, 3
    save(case.label, volume)
    mask = prepare(case, view=VIEW, modalities=["CT"], structures=["GTVn", "whole_tumor"]).mask
    assert {int(v): int((mask == v).sum()) for v in mask.unique()} == {0: 4096 - 216 - 1024, 1: 8, 2: 208, 255: 1024}


def test_nnunet_version_one_is_read(hecktor, tmp_path):
    root = in_nnunet(hecktor, tmp_path / "nnunet")
    described = {"modality": {"0": "CT", "1": "PT"}, "labels": {"0": "background", "1": "GTVp", "2": "GTVn"}}
    (root / "dataset.json").write_text(json.dumps(described))
    assert contents(root)[0].structures == {"GTVp": (1,), "GTVn": (2,)}


def test_everything_wrong_with_a_dataset_json_is_said_at_once(hecktor, tmp_path):
    wrong = {"channel_names": {"0": "CT", "1": "ct"}, "labels": {"background": 0, "a": "x"}, "file_ending": ".mha"}
    root = in_nnunet(hecktor, tmp_path / "nnunet", **wrong)
    with pytest.raises(DataError) as told:
        find_cases(root)
    assert [sentence.split(": ", 1)[1][:30] for sentence in told.value.problems] == [
        "file_ending is '.mha'; NIfTI f",
        "its channels CT, CT are not to",
        "structure 'a' is 'x'; write it",
    ]


# ------------------------------------------------------------------------------------------------------------- BraTS


def test_brats_2023_names_and_the_challenge_regions(hecktor, tmp_path):
    root = in_brats(hecktor, tmp_path / "brats", joint="-", suffixes={"CT": "t1c", "PT": "t2f"})
    found, cases = contents(root)
    assert found.modalities == ("FLAIR", "T1CE") and found.reference == "T1CE"
    assert found.structures["whole_tumor"] == (1, 2, 3) and cases[0].structures["tumor_core"] == (1, 3)
    root = in_brats(hecktor, root)
    with pytest.raises(DataError, match="holds both CASE_t1 and CASE-t1n files"):
        find_cases(root)


# ---------------------------------------------------------------------------------------------------------- declared


def test_everything_wrong_with_a_declaration_is_said_at_once(hecktor, tmp_path):
    yaml = """\
imagess: {CT: a}
image: {ct: "imagesTr/{patient}.nii.gz", PET: "{case}.mha"}
reference: MR
label: "../{case}.nii.gz"
structures: {tumor: 1, edema: 1, air: 0}
ignore: 1
center: {pattern: "[A-Z]+"}
"""
    root = in_declared(hecktor, tmp_path / "declared", yaml)
    with pytest.raises(DataError) as told:
        find_cases(root)
    said = "\n".join(told.value.problems)
    for part in (
        "it has the key 'imagess'; known: ",
        "Did you mean 'image'?",
        "'ct' is no name of an image",
        "reference is 'MR', which has no image pattern; name one of ct, PET.",
        "structure 'edema' has the same label values",
        "structure 'air' is '0'",
        "ignore is '1'",
        "with the placeholder {patient}; known: {case}, {center}.",
        "without {case}",
        "images and labels are NIfTI files",
        "write a path inside the data folder",
        "center's pattern '[A-Z]+' needs one group",
    ):
        assert part in said, part


def test_everything_wrong_with_the_files_is_said_at_once(hecktor, tmp_path):
    yaml = DECLARED.replace('pet.nii.gz"', 'pet*.nii.gz", MR: "{center}/{case}/mr.nii.gz"')
    root = in_declared(hecktor, tmp_path / "declared", yaml)
    (root / "MDA" / "MDA-001" / "ct.nii.gz").unlink()
    (root / "MDA" / "MDA-002" / "pet2.nii.gz").write_bytes((root / "MDA" / "MDA-002" / "pet.nii.gz").read_bytes())
    cases, problems = survey(root)
    assert len(cases) == 10
    assert [problem.split(";")[0] for problem in problems] == [
        f"No file below '{root}' fits the MR pattern '{{center}}/{{case}}/mr.nii.gz' of layout 'layout.yaml'",
        "1 case has several PET files",
        "1 case has no CT image, whose grid the others are read on",
    ]
    assert not any("MDA-0" in problem for problem in problems)  # cases are counted, not named


@pytest.mark.parametrize(
    "center, counted",
    [
        ("", SIZES),
        ("center: KUH", {"KUH": 11}),
        ("center: {pattern: '^(..)'}", {"CH": 4, "HM": 3, "MD": 4}),
        ("center: {table: sites.csv, case: ID, center: Site}", {"C1": 6, "C2": 5}),
    ],
)
def test_a_center_is_told_by_folder_code_pattern_or_table(hecktor, tmp_path, center, counted):
    root = in_declared(hecktor, tmp_path / "declared", DECLARED + center)
    names = sorted(path.name for path in root.glob("*/*-*") if path.is_dir())
    (root / "sites.csv").write_text("\n".join(["ID,Site", *[f"{n},{1 + i % 2}" for i, n in enumerate(names)]]) + "\n")
    assert contents(root)[0].centers == counted


def test_a_label_value_that_no_structure_names_makes_the_case_unusable(hecktor, tmp_path):
    root = in_declared(hecktor, tmp_path / "declared", DECLARED.replace(", GTVn: 2", ""))
    case = next(case for case in find_cases(root) if case.patient == "CHUM-001")  # with a node
    with pytest.raises(
        DataError, match=r"The label holds the value 2; only 0 \(background\), 1 \(GTVp\) are allowed\."
    ):
        prepare(case, view=VIEW, modalities=["CT"])


def test_reports_and_records_come_along(hecktor, tmp_path):
    root = in_declared(hecktor, tmp_path / "declared", DECLARED + 'report: "text/{case}.txt"\n')
    (root / "text").mkdir()
    (root / "text" / "MDA-001.txt").write_text("A mass of the tongue.\n")
    for table in hecktor.glob("*.csv"):
        (root / table.name).write_text(table.read_text())
    ours = {case.patient: case for case in find_cases(root)}
    theirs = {case.patient: case for case in find_cases(hecktor)}
    assert ours["MDA-001"].report == "A mass of the tongue." and ours["MDA-002"].report is None
    assert all(ours[p].record == theirs[p].record and ours[p].days == theirs[p].days for p in theirs)
