"""prepare: from DICOM that the test writes to the HECKTOR layout, voxel by voxel, and without a trace of the person."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from omegaconf import OmegaConf

from client.__main__ import main
from client.commands.prepare import Row, _names, write_table
from client.data.images.checks import check_case
from client.data.layouts import find_cases
from tests.helpers.dicom import BIRTHDAY, HOSPITAL_NUMBER, Scan, Visit, box, pet_header, write_scan, write_structures

SHAPE = (20, 16, 12)
FACTOR = 80_000 / (4e8 * 2 ** (-3600 / 6586.2))


def voxels(low, high, shape=SHAPE):
    return np.random.default_rng(1).integers(low, high, shape).astype(np.int16)


CT = voxels(0, 2000)
PET = voxels(1, 3000, (10, 8, 12))


def write_visit(folder, visit, **pet):
    ct = Scan("CT", CT, spacing=(2.0, 2.5, 3.0), intercept=-1024.0)
    write_scan(folder, ct, visit)
    write_scan(folder, Scan("PT", PET, spacing=(4.0, 5.0, 3.0), slope=2.5, changes=pet_header(**pet)), visit)
    # columns at x = -20 + 2i, rows at y = -30 + 2.5j, slices at z = 100 + 3k
    primary = box(-15.0, -9.0, -26.0, -19.0, 106.0)  # i = 3, 4, 5; j = 2, 3, 4
    write_structures(folder, {"GTV-T": [primary], "Cord": [primary]}, visit, drawn_on=ct.uid)


@pytest.fixture
def center(tmp_path):
    path = tmp_path / "center.yaml"
    values = {"code": "CHUM", "root": str(tmp_path / "root"), "vault": str(tmp_path / "vault")}
    OmegaConf.save(OmegaConf.create(values), path)
    return path


def prepare(tmp_path, center, *words):
    return main(["prepare", str(tmp_path / "dicom"), "--center", str(center), *words])


def rows(tmp_path):
    with (tmp_path / "root" / "prepared.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_voxel_arrives_in_its_place_in_its_unit(tmp_path, center):
    write_visit(tmp_path / "dicom", Visit())
    assert prepare(tmp_path, center) == 0
    images = tmp_path / "root" / "imagesTr"
    ct, pet = (nib.load(images / f"CHUM-001__{kind}.nii.gz") for kind in ("CT", "PT"))
    label = nib.load(tmp_path / "root" / "labelsTr" / "CHUM-001.nii.gz")
    assert ct.get_data_dtype() == np.int16 and np.array_equal(np.asarray(ct.dataobj), CT - 1024)
    assert np.array_equal(ct.affine, [[-2, 0, 0, 20], [0, -2.5, 0, 30], [0, 0, 3, 100], [0, 0, 0, 1]])
    assert np.allclose(np.asarray(pet.dataobj), PET * 2.5 * FACTOR, rtol=1e-6) and pet.affine[0, 0] == -4
    assert sorted(map(tuple, np.argwhere(np.asarray(label.dataobj)))) == [
        (i, j, 2) for i in (3, 4, 5) for j in (2, 3, 4)
    ]
    [row] = rows(tmp_path)
    assert (row["status"], row["gtvp_ml"], row["regions_left_out"]) == ("prepared", "0.14", "Cord")  # 9 x 15 mm3
    assert float(row["suv_factor"]) == pytest.approx(FACTOR, rel=1e-5) and row["ct_mm"] == "2 x 2.5 x 3"
    [case] = find_cases(tmp_path / "root", center="CHUM")
    assert check_case(case, need_pet=True, need_label=True) == []


def test_nothing_outside_the_vault_knows_the_person(tmp_path, center):
    write_visit(tmp_path / "dicom", Visit())
    prepare(tmp_path, center)
    for path in (tmp_path / "root").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for part in (content, gzip.decompress(content) if path.suffix == ".gz" else b""):
                assert not [
                    word for word in ("Doe", "Jane", HOSPITAL_NUMBER, BIRTHDAY, "20240305") if word.encode() in part
                ]
    table = tmp_path / "vault" / "CHUM" / "codes.json"
    assert json.loads(table.read_text())["codes"] == {HOSPITAL_NUMBER: "CHUM-001"}
    assert table.stat().st_mode & 0o077 == 0


def test_a_second_export_adds_new_patients_and_keeps_codes(tmp_path, center):
    write_visit(tmp_path / "dicom" / "a", Visit())
    prepare(tmp_path, center)
    before = (tmp_path / "root" / "imagesTr" / "CHUM-001__CT.nii.gz").stat().st_mtime_ns
    write_visit(tmp_path / "dicom" / "b", Visit(patient="0001"))
    write_visit(tmp_path / "dicom" / "c", Visit(patient="9999"))
    assert prepare(tmp_path, center) == 0
    assert [(r["case"], r["status"]) for r in rows(tmp_path)] == [(f"CHUM-00{n}", "prepared") for n in (1, 2, 3)]
    assert (tmp_path / "root" / "imagesTr" / "CHUM-001__CT.nii.gz").stat().st_mtime_ns == before


def test_an_erased_patient_is_left_out_of_a_newer_export(tmp_path, center, capsys):
    write_visit(tmp_path / "dicom" / "a", Visit())
    prepare(tmp_path, center)
    assert main(["erase", "--center", str(center), "--patient", "CHUM-001"]) == 0
    for path in (tmp_path / "root").rglob("CHUM-001*"):
        path.unlink()
    table = tmp_path / "ehr.csv"
    table.write_text(f"PatientID,Age\n{HOSPITAL_NUMBER},61\n0001,50\n")
    write_visit(tmp_path / "dicom" / "b", Visit(patient="0001"))
    assert prepare(tmp_path, center, "--table", str(table)) == 0
    assert "left out: 1 patients in this folder were erased here" in capsys.readouterr().out
    assert {case.patient for case in find_cases(tmp_path / "root", center="CHUM")} == {"CHUM-002"}
    assert (tmp_path / "root" / "ehr.csv").read_text() == "PatientID,Age\nCHUM-002,50\n"
    kept = [path for path in (tmp_path / "vault").rglob("*") if path.is_file()]
    assert kept and not [path.name for path in kept if HOSPITAL_NUMBER.encode() in path.read_bytes()]


def test_what_cannot_be_done_right_is_refused_with_its_reason_and_the_others_are_done(tmp_path, center, capsys):
    write_visit(tmp_path / "dicom" / "a", Visit(), Units="CNTS")
    write_visit(tmp_path / "dicom" / "b", Visit(patient="0001"))
    assert prepare(tmp_path, center) == 1
    found = {row["status"]: row for row in rows(tmp_path)}
    assert "units 'CNTS'; only Bq/mL" in found["refused"]["why"] and set(found) == {"prepared", "refused"}
    assert (
        len(list((tmp_path / "root").rglob("*.nii.gz"))) == 3
        and "1 prepared, 0 kept, 1 refused" in capsys.readouterr().out
    )


def test_the_clinical_table_gets_the_codes(tmp_path, center):
    write_visit(tmp_path / "dicom", Visit())
    table, header = tmp_path / "ehr.csv", "PatientID,Gender,Age,Tobacco Consumption,Relapse,RFS"
    table.write_text(f"{header}\n{HOSPITAL_NUMBER},M,61,0,1,400\nsomebody,F,50,1,0,100\n")
    assert prepare(tmp_path, center, "--table", str(table)) == 0
    assert (tmp_path / "root" / "ehr.csv").read_text() == f"{header}\nCHUM-001,M,61,0,1,400\n"
    [case] = find_cases(tmp_path / "root", center="CHUM")
    assert (case.event, case.days, case.record["gender"]) == (1, 400.0, "male")


def test_a_hospitals_own_names_are_used(tmp_path, center):
    write_visit(tmp_path / "dicom", Visit())
    names = tmp_path / "names.yaml"
    names.write_text("GTVn: ['cord']\n")
    assert prepare(tmp_path, center, "--names", str(names)) == 0
    assert rows(tmp_path)[0]["gtvn_ml"] == "0.14" and rows(tmp_path)[0]["regions_left_out"] == "GTV-T"
    names.write_text("GTVx: ['cord']\n")
    assert prepare(tmp_path, center, "--names", str(names)) == 2


def test_a_table_of_codes_that_is_damaged_stops_everything(tmp_path, center, capsys):
    write_visit(tmp_path / "dicom", Visit())
    (tmp_path / "vault" / "CHUM").mkdir(parents=True)
    (tmp_path / "vault" / "CHUM" / "codes.json").write_text("{")
    assert prepare(tmp_path, center) == 2 and "restore it from a backup" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_a_newer_export_loses_no_earlier_patients_row(tmp_path, center, capsys):
    table = tmp_path / "clinical.csv"
    for number, age in (("A1", 60), ("A2", 70)):
        write_visit(tmp_path / "dicom", Visit(patient=number))
        table.write_text(f"PatientID,Age\n{number},{age}\nOTHER,1\n")
        assert prepare(tmp_path, center, "--table", str(table)) == 0
        shutil.rmtree(tmp_path / "dicom")
    assert (
        "1 rows with codes; 1 of patients without one left out; 1 of an earlier table kept" in capsys.readouterr().out
    )
    assert (tmp_path / "root" / "clinical.csv").read_text() == "PatientID,Age\nCHUM-001,60\nCHUM-002,70\n"
    write_visit(tmp_path / "dicom", Visit(patient="A2"))
    table.write_text("PatientID,Years\nA2,70\n")
    assert prepare(tmp_path, center, "--table", str(table)) == 1
    assert "holds 1 patients whom the new table lacks, in other columns" in capsys.readouterr().out
    table.write_text("PatientID,Years\nA1,61\nA2,71\n")
    assert prepare(tmp_path, center, "--table", str(table)) == 0
    assert (tmp_path / "root" / "clinical.csv").read_text() == "PatientID,Years\nCHUM-001,61\nCHUM-002,71\n"


def test_two_tables_of_one_name_are_refused_before_one_replaces_the_other(tmp_path, center, capsys):
    write_visit(tmp_path / "dicom", Visit())
    for names in (["a/clinical.csv", "b/clinical.tsv"], ["prepared.csv"]):
        words = [word for name in names for word in ("--table", str(tmp_path / name))]
        assert prepare(tmp_path, center, *words) == 2
        assert f"Two tables would be written as '{Path(names[0]).name}'" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("spoil", "kept"),
    [
        (lambda text: text.replace(",", ";"), True),  # saved by a spreadsheet
        (lambda text: "\ufeff" + text, True),
        (lambda text: text.replace("case,", "code,"), False),
        (lambda text: "\0", False),
    ],
)
def test_an_earlier_table_in_another_form_is_read_and_a_broken_one_put_aside(tmp_path, spoil, kept, capsys):
    path = tmp_path / "prepared.csv"
    write_table(path, [Row("CHUM-001", why="no PET; left, out")])
    path.write_text(spoil(path.read_text().replace("; left, out", "")))
    write_table(path, [Row("CHUM-001", status="kept"), Row("CHUM-002")])
    with path.open() as file:
        lines = {line["case"]: line for line in csv.DictReader(file)}
    assert list(lines) == ["CHUM-001", "CHUM-002"] and lines["CHUM-001"]["status"] == ("prepared" if kept else "kept")
    assert (tmp_path / "prepared.csv.unreadable").exists() is not kept
    assert ("kept as prepared.csv.unreadable" in capsys.readouterr().out) is not kept


def test_names_of_structures_stay_what_was_typed_and_stand_once(tmp_path, center, capsys):
    names = tmp_path / "names.yaml"
    names.write_text("GTVp: [NO, 007, 1e3]\n")
    assert _names(names) == {"GTVp": ["NO", "007", "1e3"]}
    names.write_text("GTVp: [a]\nGTVp: [b]\n")
    write_visit(tmp_path / "dicom", Visit())
    assert prepare(tmp_path, center, "--names", str(names)) == 2 and "'GTVp' stands twice" in capsys.readouterr().err
