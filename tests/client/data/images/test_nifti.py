"""NIfTI files of every odd kind: a sentence, never another exception, and labels whole within rounding."""

from __future__ import annotations

import gzip
import os
import struct

import nibabel as nib
import numpy as np
import pytest

from client.data.case import Case
from client.data.images.nifti import read_volume, whole
from client.data.layouts.extent import median_extent
from common.errors import DataError

MASK = np.zeros((6, 5, 4), np.uint8)
MASK[1:3, 1:3, 1:3], MASK[4, 4, 3] = 1, 2


def content(data) -> bytearray:
    return bytearray(nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0])).to_bytes())


def with_bytes(start, new):
    def make():
        raw = content(MASK)
        raw[start : start + len(new)] = new
        return bytes(raw)

    return make


RGB = np.zeros(MASK.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
NO_SFORM = struct.pack("<h", 1)
ODD = {
    "colors": (lambda: bytes(content(RGB)), "holds colors"),
    "colors with alpha": (lambda: bytes(content(np.zeros((6, 5, 4), [(c, "u1") for c in "RGBA"]))), "holds colors"),
    "complex": (lambda: bytes(content(MASK.astype(np.complex64))), "holds complex numbers"),
    "two dimensions": (lambda: bytes(content(MASK[:, :, 0])), "has 2 dimensions instead of 3"),
    "four dimensions": (lambda: bytes(content(np.stack([MASK, MASK], -1))), "has 4 dimensions instead of 3"),
    "a vector each": (lambda: bytes(content(np.zeros((6, 5, 4, 1, 3), np.float32))), "has 5 dimensions"),
    "an sform of zeros": (lambda: bytes(_zero_sform()), "affine does not place its voxels"),
    "an sform of NaN": (lambda: bytes(_zero_sform(np.nan)), "affine does not place its voxels"),
    "flat": (lambda: bytes(_zero_sform(3.0)), "affine does not place its voxels"),  # three equal rows
    "an unknown type": (with_bytes(70, struct.pack("<h", 9999)), "missing, corrupt or truncated"),
    "a slope without end": (with_bytes(112, struct.pack("<ff", np.inf, 0)), "missing, corrupt or truncated"),
    "voxels that begin in the header": (with_bytes(108, struct.pack("<f", 0)), "missing, corrupt or truncated"),
    "huge sizes": (with_bytes(40, struct.pack("<4h", 3, 32000, 32000, 32000)), "missing, corrupt or truncated"),
    "negative sizes": (with_bytes(40, struct.pack("<4h", 3, -6, 5, 4)), "missing, corrupt or truncated"),
    "cut": (lambda: bytes(content(MASK))[:-40], "missing, corrupt or truncated"),
    "a cut header": (lambda: bytes(content(MASK))[:200], "missing, corrupt or truncated"),
    "nothing": (lambda: b"", "missing, corrupt or truncated"),
    "text": (lambda: b"this is no image\n" * 40, "missing, corrupt or truncated"),
    "half of a gzip": (lambda: gzip.compress(bytes(content(MASK)))[:60], "missing, corrupt or truncated"),
    "a gzip with a wrong sum": (lambda: gzip.compress(bytes(content(MASK)))[:-8] + b"12345678", "missing, corrupt"),
}


def _zero_sform(value=0.0):
    raw = content(MASK)
    raw[254:256], raw[280:328] = NO_SFORM, struct.pack("<12f", *[value] * 12)
    return raw


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("role", ["CT", "PET", "label"])
def test_an_odd_file_is_a_sentence_about_its_role(tmp_path, kind, role):
    make, sentence = ODD[kind]
    path = tmp_path / "one.nii.gz"
    path.write_bytes(make())
    with pytest.raises(DataError, match=sentence) as refused:
        read_volume(path, role=role)
    assert f"The {role} file" in str(refused.value) and "one.nii" not in str(refused.value)


def test_a_named_pipe_a_folder_and_nothing_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    for name in ("pipe", "folder", "absent"):
        with pytest.raises(DataError, match=r"missing, corrupt or truncated \(no file\)"):
            read_volume(tmp_path / f"{name}.nii.gz", role="CT")


@pytest.mark.parametrize("kind", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("factor", [1.0, 0.9999999, 1.0000001, 0.999])
def test_a_label_that_rounding_moved_comes_back_whole(tmp_path, kind, factor):
    path = tmp_path / "label.nii"
    image = nib.Nifti1Image(MASK * factor if kind.startswith("float") else MASK, np.eye(4) * 3)
    nib.save(image, path)
    assert np.array_equal(read_volume(path, role="label").data, MASK)


@pytest.mark.parametrize("top", [127, 255, 32767, 65535])
def test_a_label_that_a_writer_stretched_over_the_integers_comes_back_whole(tmp_path, top):
    stored = np.rint(MASK * (top / 2)).astype(np.uint8 if top < 256 else np.uint16)
    raw = content(stored)
    raw[112:120] = struct.pack("<ff", 2 / top, 0.0)
    (tmp_path / "label.nii").write_bytes(bytes(raw))
    assert np.array_equal(read_volume(tmp_path / "label.nii", role="label").data, MASK)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(("unit", "per_mm"), [("mm", 1.0), ("unknown", 1.0), ("meter", 1e-3), ("micron", 1e3)])
def test_a_headers_unit_of_length_counts(tmp_path, kind, unit, per_mm):
    """ITK converts meters and microns, nibabel passes the unit by: a CT in microns was a thousand times too large."""
    affine = np.array([[-3.0, 0, 0, 40], [0, 2.5, 0, -7], [0, 0, 1.5, 9], [0, 0, 0, 1 / per_mm]]) * per_mm
    image = kind(MASK, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "one.nii.gz")
    volume = read_volume(tmp_path / "one.nii.gz", role="CT")
    assert volume.spacing == pytest.approx([3.0, 2.5, 1.5]) and volume.voxel_mm3 == pytest.approx(11.25)
    assert volume.affine[:3, 3] == pytest.approx([40 - 3.0 * 5, -7, 9])  # turned: the last column comes first
    case = Case("a", "A", {"CT": tmp_path / "one.nii.gz"}, None, {}, None, None, None, None)
    assert median_extent([case])[1] == pytest.approx([1.5, 2.5, 3.0])


@pytest.mark.parametrize(("unit", "spacing"), [("meter", 3.0), ("micron", 3.0)])
def test_a_unit_that_makes_no_voxel_of_a_body_is_refused(tmp_path, unit, spacing):
    image = nib.Nifti1Image(MASK, np.diag([spacing] * 3 + [1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "one.nii")
    with pytest.raises(DataError, match=f"says that its lengths are in {unit}s, which makes voxels of"):
        read_volume(tmp_path / "one.nii", role="PET")


def test_a_label_that_is_not_whole_stays_what_was_read_and_an_image_is_never_rounded(tmp_path):
    assert np.array_equal(whole(MASK * 0.97), MASK * 0.97)
    nib.save(nib.Nifti1Image(MASK * 0.9999, np.eye(4) * 3), tmp_path / "pet.nii")
    assert read_volume(tmp_path / "pet.nii", role="PET").data.max() == pytest.approx(1.9998)
