"""Every broken image gets its sentence, without the patient's ID; one of them does not stop a center."""

from __future__ import annotations

import logging

import nibabel as nib
import numpy as np
import pytest

from client.data.images.checks import check_case, load_usable
from client.data.images.nifti import read_volume
from client.data.images.volumes import prepare
from client.data.layouts import find_cases
from common.config.view import View
from common.data.batch import CT, PET
from common.errors import DataError

VIEW = View(size=[4, 4, 4], window=[4, 4, 4])


@pytest.fixture
def case(cohort):
    return find_cases(cohort("CHUM-001"))[0]


def refused(case, disk, role: str, data: np.ndarray, affine: np.ndarray | None = None) -> str:
    """Replace one file and return the one sentence that check and prepare agree on."""
    disk.save(case.label if role == "label" else case.images[role], data, affine)
    return one_sentence(case)


def one_sentence(case) -> str:
    (sentence,) = check_case(case, need_pet=True, need_label=True)
    with pytest.raises(DataError) as raised:
        prepare(case, view=VIEW, modalities=[CT, PET])
    assert raised.value.problems == [sentence] and "CHUM-001" not in sentence
    assert sentence.endswith(".") and (";" in sentence)  # what is wrong; what to do
    return sentence


def test_a_good_case_has_no_problems(case):
    assert check_case(case, need_pet=True, need_label=True) == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_truncated_file(case, share):
    path = case.images[CT]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "The CT file is missing, corrupt or truncated" in one_sentence(case)


def test_both_nifti_versions_are_read(case, disk):
    plain = disk.ct()
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        nib.save(kind(plain, np.eye(4) * 3), case.images[CT])
        assert np.array_equal(read_volume(case.images[CT], role="CT").data, plain)
    swapped = nib.Nifti2Image(plain, np.eye(4) * 3, header=nib.Nifti2Header(endianness=">"))
    nib.save(swapped, case.images[CT].with_name("plain.nii"))
    assert np.array_equal(read_volume(case.images[CT].with_name("plain.nii"), role="CT").data, plain)


def test_corrupt_and_missing_files(case):
    content = bytearray(case.images[PET].read_bytes())
    content[len(content) // 2] ^= 255
    case.images[PET].write_bytes(content)
    assert "The PET file" in one_sentence(case)
    case.images[PET].write_bytes(b"not an image at all")
    assert "The PET file" in one_sentence(case)
    case.images[PET].unlink()
    assert "The PET file" in one_sentence(case)


def test_ct_and_pet_that_do_not_overlap(case, disk):
    far = nib.affines.from_matvec(np.eye(3) * 3, [500.0, 0, 0])
    assert "CT and PET do not overlap" in refused(case, disk, PET, disk.pet(), far)


def test_label_elsewhere(case, disk):
    far = nib.affines.from_matvec(np.eye(3) * 3, [0, 0, -900.0])
    assert "CT and label do not overlap" in refused(case, disk, "label", disk.label(), far)


@pytest.mark.parametrize(("value", "kind"), [(3, np.uint8), (-1, np.int16), (0.5, np.float32), (200, np.uint8)])
def test_label_value_outside_the_three(case, disk, value, kind):
    mask = disk.label().astype(kind)
    mask[0, 0, 0] = value
    assert f"holds the value {value:g};" in refused(case, disk, "label", mask)


def test_float_labels_and_absent_structures_are_fine(case, disk):
    disk.save(case.label, disk.label().astype(np.float64))
    assert check_case(case, need_pet=True, need_label=True) == []
    disk.save(case.label, np.zeros((12, 10, 9), np.uint8))
    assert check_case(case, need_pet=True, need_label=True) == []
    assert prepare(case, view=VIEW, modalities=[CT]).mask.sum() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_volume(case, disk, value):
    suv = disk.pet()
    suv[3, 3, 3] = value
    assert "NaN or infinite" in refused(case, disk, PET, suv)


def test_empty_volume(case, disk):
    assert "is empty" in refused(case, disk, CT, np.full((12, 10, 9), -1000, np.int16))


def test_volume_smaller_than_a_patch(case, disk):
    assert "smaller than one patch" in refused(case, disk, CT, disk.ct((12, 10, 7)))


def test_pet_in_becquerel(case, disk):
    assert "not in SUV" in refused(case, disk, PET, disk.pet() * 20_000)


def test_wrong_number_of_dimensions(case, disk):
    assert "4 dimensions" in refused(case, disk, CT, np.ones((12, 10, 9, 2), np.int16))
    disk.save(case.images[CT], disk.ct()[..., None])
    assert check_case(case, need_pet=True, need_label=True) == []


def test_missing_files_count_only_where_needed(tmp_path, disk):
    disk.save(tmp_path / "imagesTr/CHUM-001__CT.nii.gz", disk.ct())
    (case,) = find_cases(tmp_path)
    assert check_case(case, need_pet=False, need_label=False) == []
    assert len(check_case(case, need_pet=True, need_label=True)) == 2


def test_all_problems_of_a_case_come_together(case, disk):
    disk.save(case.images[CT], np.zeros((12, 10, 9), np.int16))
    disk.save(case.label, disk.label() + 5)
    case.images[PET].write_bytes(b"")
    assert len(check_case(case, need_pet=True, need_label=True)) == 3


def test_one_unreadable_case_is_counted_and_named_only_in_the_centers_log(cohort, caplog):
    cases = find_cases(cohort("CHUM-001", "CHUM-002", "CHUM-003"))
    cases[1].images[CT].write_bytes(b"")
    one = lambda c: prepare(c, view=VIEW, modalities=[CT])  # noqa: E731
    with caplog.at_level(logging.WARNING, logger="fedgraft.center"):
        ready, skipped = load_usable(cases, prepare_one=one)
    assert [c.patient for c, _ in ready] == ["CHUM-001", "CHUM-003"] and skipped == 1
    assert "case=CHUM-002" in caplog.text
    with pytest.raises(DataError) as raised:
        load_usable(cases, prepare_one=one, skip_unreadable=False)
    assert raised.value.problems[0].startswith("1 case: The CT file") and "CHUM" not in str(raised.value)


def test_a_center_without_any_usable_case_stops(cohort):
    cases = find_cases(cohort("CHUM-001", "CHUM-002"))
    for case in cases:
        case.images[CT].write_bytes(b"")
    with pytest.raises(DataError, match="2 cases: The CT file"):
        load_usable(cases, prepare_one=lambda c: prepare(c, view=VIEW, modalities=[CT]))
