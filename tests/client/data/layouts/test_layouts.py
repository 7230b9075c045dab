"""The same images in every layout are the same cases and tensors; what does not add up is said, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from client.center.config import CenterConfig
from client.data.images.volumes import prepare
from client.data.layouts import READERS, contents, find_cases, layout_kind, survey
from client.doctor.cohort import check_layout
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
    seen = survey(root)
    assert seen.odd == ["1 case has no center that 'centers.csv' tells and is left out; complete it."]
    assert len(seen.cases) == 10 and seen.problems == []
    (root / "centers.csv").write_text("\n".join(["case,center", *rows[2:]]) + "\n")
    assert survey(root).problems == ["2 cases have no center that 'centers.csv' tells; complete it."]


FORMS = {
    "semicolons": lambda text: text.replace(",", ";"),
    "tabs and a title": lambda text: "Sites of the study\n" + text.replace(",", "\t"),
    "a byte order mark": lambda text: "\ufeff" + text,
    "empty cells behind": lambda text: text.replace("\n", ",,\n"),
    "a row twice": lambda text: text + text.split("\n")[1] + "\n",
    "a row with a cell too many": lambda text: text + "X_1,South,7\n",
    "other spellings": lambda text: text.replace("None\n", "none\n", 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_centers_is_read_as_written(hecktor, tmp_path, form):
    """``NA`` and ``None`` are codes as good as any; no row becomes an index because another one is longer."""
    root = in_nnunet(hecktor, tmp_path / "nnunet")
    names = sorted(path.name.removesuffix("_0000.nii.gz") for path in (root / "imagesTr").glob("*_0000.nii.gz"))
    rows = "".join(f"{name},{'None' if i % 2 else 'NA'}\n" for i, name in enumerate(names))
    (root / "centers.csv").write_text(FORMS[form]("case,center\n" + rows))
    assert contents(root)[0].centers == {"NA": 6, "None": 5}
    assert bool(survey(root).odd) is (form == "a row with a cell too many")
    assert any("several spellings were joined" in note for note in survey(root).notes) is (form == "other spellings")


def test_a_table_of_centers_that_says_two_things_is_not_believed(hecktor, tmp_path):
    root = in_nnunet(hecktor, tmp_path / "nnunet")
    names = sorted(path.name.removesuffix("_0000.nii.gz") for path in (root / "imagesTr").glob("*_0000.nii.gz"))
    table = "".join(f"{name},South\n" for name in names)
    (root / "centers.csv").write_text("case,center\n" + table + f"{names[0]},North\n")
    seen = survey(root)
    assert seen.odd == ["1 case has two centers in 'centers.csv' and is left out; keep one row each."]
    assert len(seen.cases) == 10 and {case.center for case in seen.cases} == {"South"}
    (root / "centers.csv").write_text("case,center,Center\n" + table.replace("South", "South,North"))
    [sentence] = survey(root).problems
    assert sentence == "The table of centers 'centers.csv' has several columns called 'center'; keep one of each."


def test_nnunet_of_one_hospital_needs_no_center_in_its_names(hecktor, tmp_path):
    root = in_nnunet(hecktor, tmp_path / "nnunet")
    for path in [*root.glob("*/CHUM_*"), *root.glob("*/HMR_*")]:
        path.unlink()
    assert {case.center for case in find_cases(root, center="KUH")} == {"KUH"}
    assert {case.center for case in find_cases(root)} == {"ONE"}


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ('"labels": {"background": 0, "GTVp": 1, "GTVp": 2}', "'GTVp' stands twice; keep one of them."),
        ('"labels": {"0": "background", "1": "GTVp", "2": "GTVp"}', "several of its label values are called 'GTVp'"),
        ('"labels": {"background": 0, "GTVp": 1, "ignore": [2, 3]}', "its label 'ignore' is '[2, 3]'; write the one"),
    ],
)
def test_a_name_that_stands_twice_in_a_dataset_json_is_refused(hecktor, tmp_path, described, sentence):
    root = in_nnunet(hecktor, tmp_path / "nnunet")
    (root / "dataset.json").write_text(f'{{"channel_names": {{"0": "CT", "1": "PT"}}, {described}}}')
    with pytest.raises(DataError) as told:
        find_cases(root)
    assert sentence in told.value.problems[0]


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
    seen = survey(root)
    assert len(seen.cases) == 9
    assert [problem.split(";")[0] for problem in seen.problems] == [
        f"No file below '{root}' fits the MR pattern '{{center}}/{{case}}/mr.nii.gz' of layout 'layout.yaml'",
    ]
    assert [sentence.split(";")[0] for sentence in seen.odd] == [
        "1 case has several PET files and is left out",
        "1 case has no CT image, whose grid the others are read on, and is left out",
    ]
    assert not any("MDA-0" in sentence for sentence in [*seen.problems, *seen.odd])  # cases are counted, not named


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize(("spoiled", "stops"), [(1, False), (2, True)])
def test_a_few_cases_that_do_not_add_up_cost_those_cases_and_many_stop(hecktor, tmp_path, kind, spoiled, stops):
    root = LAYOUTS[kind](hecktor, tmp_path / kind)
    reference = find_cases(root)[0].reference
    for case in find_cases(root)[:spoiled]:
        case.images[reference].unlink()
    seen = survey(root)
    assert len(seen.cases) == 11 - spoiled and bool(seen.problems) is stops and bool(seen.odd) is not stops
    if not stops:
        assert len(find_cases(root)) == 10


@pytest.mark.parametrize("kind", LAYOUTS)
def test_images_that_no_pattern_takes_up_are_said(hecktor, tmp_path, kind):
    root = LAYOUTS[kind](hecktor, tmp_path / kind)
    config = CenterConfig(find_cases(root)[0].center, str(root))

    def said():
        return [finding.what for finding in check_layout(config, find_cases(root, center=config.code))][1:]

    assert said() == []
    (root / "imagesTr").mkdir(exist_ok=True)
    (root / "imagesTr" / "KUH_1_0007.nii.gz").write_bytes(b"")
    assert said() == ["1 image files belong to no case of the layout."]


@pytest.mark.parametrize("code", ["NO", "007", "1e3", "true", "null_island", "1.10"])
def test_a_declared_layouts_words_are_what_was_typed(hecktor, tmp_path, code):
    root = in_declared(hecktor, tmp_path / "declared", DECLARED + f"center: {code.replace('.', '-')}\n")
    wanted = f"C{code}" if code.isdigit() else code.replace(".", "-")
    assert {case.center for case in find_cases(root)} == {wanted}
    declared = DECLARED.replace("GTVp: 1, GTVn: 2", f"{code}: 1, N: [1, 2]")
    (root / "layout.yaml").write_text(declared)
    named = code.replace(".", "_")
    assert find_cases(root)[0].structures == {named: (1,), "N": (1, 2)}


def test_a_key_that_stands_twice_in_a_layout_is_refused(hecktor, tmp_path):
    root = in_declared(hecktor, tmp_path / "declared", DECLARED + "center: A\ncenter: B\n")
    with pytest.raises(DataError, match="'center' stands twice"):
        find_cases(root)


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
    for content, read in (("Zunge.".encode("utf-16"), "Zunge."), ("Größe 2 cm".encode("latin-1"), None)):
        (root / "text" / "MDA-001.txt").write_bytes(content)
        seen = survey(root)
        assert next(case for case in seen.cases if case.patient == "MDA-001").report == read
        assert bool(seen.odd) is (read is None)  # a letter that is replaced makes another word
    assert all(ours[p].record == theirs[p].record and ours[p].days == theirs[p].days for p in theirs)
