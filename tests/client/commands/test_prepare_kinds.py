"""prepare over every element of every file, absent, empty or garbled: one patient's trouble, never another number."""

from __future__ import annotations

import copy
import shutil

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.__main__ import main
from client.commands.prepare import How, prepare_patient
from client.dicom.names import NAMES
from client.dicom.series import examination_of, find_series
from common.errors import DataError
from tests.helpers.dicom import Scan, Visit, box, pet_header, write_scan, write_structures

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CT = np.random.default_rng(1).integers(0, 2000, (12, 10, 4)).astype(np.int16)
PET = np.random.default_rng(2).integers(1, 3000, (6, 5, 4)).astype(np.int16)
REGION = box(-15.0, -9.0, -26.0, -19.0, 103.0)


def write(folder, *, patient="4711", number="CHUM-001"):
    visit = Visit(patient=patient)
    ct = Scan("CT", CT, intercept=-1024.0)
    cts = write_scan(folder, ct, visit)
    pets = write_scan(folder, Scan("PT", PET, spacing=(4.0, 5.0, 3.0), slope=2.5, changes=pet_header()), visit)
    return {
        "CT": cts[1],
        "PT": pets[1],
        "RTSTRUCT": write_structures(folder, {"GTVp": [REGION]}, visit, drawn_on=ct.uid),
    }


def outcome(folder, out):
    """Status, why, and the images that were written."""
    found = find_series(folder)
    [series] = found.patients.values()
    row = prepare_patient(series, "CHUM-001", out=out, how=How(NAMES))
    images = {path.name: np.asarray(nib.load(path).dataobj) for path in sorted(out.rglob("*.nii.gz"))}
    return row, images


def elements(one: Dataset):
    """Paths of every element, also inside sequences."""
    for element in one:
        yield (element.tag,)
        if element.VR == "SQ":
            yield from ((element.tag, i, *rest) for i, item in enumerate(element.value) for rest in elements(item))


def damaged(one: Dataset, path, how):
    holder = copy.deepcopy(one)
    item = holder
    for tag, index in zip(path[:-1:2], path[1::2], strict=True):
        item = item[tag].value[index]
    element = item[path[-1]]
    if how == "absent":
        del item[path[-1]]
    elif element.VR == "SQ":
        element.value = []
    elif how == "empty":
        element.value = None
    else:
        element._value = b"\x01\x02" if element.VR in ("OB", "OW", "US", "UN") else "?*!"
    return holder


@pytest.mark.parametrize("how", ["absent", "empty", "garbled"])
@pytest.mark.parametrize("role", ["CT", "PT", "RTSTRUCT"])
def test_any_element_may_be_missing_or_broken_and_no_number_changes_in_silence(tmp_path, role, how):
    folder, out = tmp_path / "dicom", tmp_path / "out"
    files = write(folder)
    whole, images = outcome(folder, tmp_path / "whole")
    one, tried = dcmread(files[role]), 0
    for path in list(elements(one)):
        shutil.rmtree(out, ignore_errors=True)
        try:
            damaged(one, path, how).save_as(files[role])
        except Exception:  # pydicom itself does not write such a file
            continue
        tried += 1
        found = find_series(folder)
        for number, series in enumerate(found.patients.values(), start=1):
            row = prepare_patient(series, f"CHUM-{number:03d}", out=out, how=How(NAMES))
            assert row.status in ("prepared", "refused") and (row.status == "prepared" or row.why)
            if row.status != "prepared" or len(found.patients) > 1:
                continue
            again = {p.name: np.asarray(nib.load(p).dataobj) for p in sorted(out.rglob("*.nii.gz"))}
            for name, voxels in again.items():
                assert np.array_equal(voxels, images[name]) or row.why, (path, row)
            assert set(again) == set(images) or row.why or not set(row.regions), (path, row)
            assert row.suv_factor in ("", whole.suv_factor) or row.why, (path, row)
    assert tried > 15


def run(tmp_path, make):
    make(tmp_path / "dicom")
    center = tmp_path / "center.yaml"
    center.write_text(f"code: CHUM\nroot: {tmp_path / 'root'}\nvault: {tmp_path / 'vault'}\n")
    return main(["prepare", str(tmp_path / "dicom"), "--center", str(center)])


def test_an_export_stored_twice_is_one_patient(tmp_path):
    def twice(folder):
        write(folder / "a")
        shutil.copytree(folder / "a", folder / "b")

    assert run(tmp_path, twice) == 0
    assert "prepared" in (tmp_path / "root" / "prepared.csv").read_text()


def test_two_different_files_of_one_instance_are_refused(tmp_path):
    def twice(folder):
        files = write(folder / "a")
        (folder / "b").mkdir()
        one = dcmread(files["CT"])
        one.PixelData = bytes(len(one.PixelData))
        one.save_as(folder / "b" / "copy")

    assert run(tmp_path, twice) == 1
    assert "Two different CT files have one instance number" in (tmp_path / "root" / "prepared.csv").read_text()


def test_a_dose_page_and_a_localizer_beside_a_ct_are_left_out_and_told(tmp_path):
    absent = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"))

    def make(folder):
        visit = Visit()
        ct = Scan("CT", CT, intercept=-1024.0)
        write_scan(folder, ct, visit)
        write_scan(folder, Scan("CT", CT[:, :, :1], changes=absent), visit)
        write_scan(folder, Scan("CT", CT[:, :, :2], changes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}), visit)

    assert run(tmp_path, make) == 0
    assert "CHUM-001,prepared" in (tmp_path / "root" / "prepared.csv").read_text()


def test_structures_on_the_pet_are_brought_to_the_ct(tmp_path):
    def make(folder):
        visit = Visit()
        pet = Scan("PT", PET, spacing=(4.0, 5.0, 3.0), slope=2.5, changes=pet_header())
        write_scan(folder, Scan("CT", CT, intercept=-1024.0), visit)
        write_scan(folder, pet, visit)
        write_structures(folder, {"GTVp": [box(-18.0, -6.0, -27.0, -13.0, 103.0)]}, visit, drawn_on=pet.uid)

    assert run(tmp_path, make) == 0
    label = np.asarray(nib.load(tmp_path / "root" / "labelsTr" / "CHUM-001.nii.gz").dataobj)
    assert label.sum() * 2 * 2 * 3 == pytest.approx(3 * 3 * 4 * 5 * 3, rel=0.3) and set(np.argwhere(label)[:, 2]) == {1}
    assert "drawn on the PET" in (tmp_path / "root" / "prepared.csv").read_text()


def test_series_without_a_patient_are_told_and_the_others_done(tmp_path, capsys):
    def make(folder):
        write(folder / "a")
        write(folder / "b", patient="")

    assert run(tmp_path, make) == 1
    assert "3 series have no PatientID" in capsys.readouterr().out
    assert (tmp_path / "root" / "prepared.csv").read_text().count("prepared") == 1


def test_a_full_disk_ends_as_a_sentence_after_telling_what_was_done(tmp_path, monkeypatch, capsys):
    from client.commands import prepare as module

    wrote = []

    def write_nifti(path, *image):
        wrote.append(path)
        if len(wrote) > 3:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr(module, "write_nifti", write_nifti)

    def make(folder):
        for number in "12":
            write(folder / number, patient=number)

    assert run(tmp_path, make) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (tmp_path / "root" / "prepared.csv").read_text().count(",prepared") == 1


@pytest.mark.parametrize(
    ("births", "refused"),
    [(("19500101", "1950.01.01"), False), (("19500101", ""), False), (("19500101", "19501010"), True)],
)
def test_two_people_under_one_number_are_no_patient(tmp_path, births, refused):
    write_scan(tmp_path, Scan("CT", np.zeros((8, 6, 5), np.int16), intercept=-1024.0), Visit(patient="7"))
    for path, born in zip(sorted(tmp_path.iterdir()), [*births, *births, births[1]], strict=False):
        one = dcmread(path)
        one.PatientBirthDate, one.SeriesInstanceUID = born, one.SeriesInstanceUID + ("" if born == births[0] else ".1")
        one.save_as(path)
    series = find_series(tmp_path).patients["7"]
    assert len(series) == 2
    with pytest.raises(DataError) as told:
        examination_of(series)
    assert ("different dates of birth" in str(told.value)) is refused
