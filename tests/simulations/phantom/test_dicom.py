"""A cohort exported as DICOM and prepared again is the same cohort: CT and labels bit for bit, PET to its rounding."""

import numpy as np
from omegaconf import OmegaConf

from client.__main__ import main
from client.data.images.nifti import read_volume
from client.data.layouts import find_cases
from simulations.phantom.dicom import PET_STEP_SUV, contours_of, export_cohort
from tests.helpers.small import write_cohort


def test_out_to_dicom_and_back_is_the_same_cohort(tmp_path):
    cases = find_cases(write_cohort(tmp_path / "cohort", {"CHUM": 3}))
    assert export_cohort(cases, tmp_path / "pacs") == 3
    center = tmp_path / "center.yaml"
    values = {"code": "CHUM", "root": str(tmp_path / "root"), "vault": str(tmp_path / "vault")}
    OmegaConf.save(OmegaConf.create(values), center)
    assert main(["prepare", str(tmp_path / "pacs"), "--center", str(center)]) == 0
    back = {digest(case): case for case in find_cases(tmp_path / "root")}
    assert len(back) == 3
    for case in cases:
        twin = back[digest(case)]
        for role, before, after in ((r, case.images[r], twin.images[r]) for r in ("CT", "PET")):
            one, other = read_volume(before, role=role), read_volume(after, role=role)
            assert np.allclose(one.affine, other.affine) and np.abs(one.data - other.data).max() <= PET_STEP_SUV * 0.501
        labels = [read_volume(path, role="label").data for path in (case.label, twin.label)]
        assert np.array_equal(*labels)


def digest(case):
    return read_volume(case.images["CT"], role="CT").data.tobytes()


def test_a_hole_is_a_contour_of_its_own():
    mask = np.zeros((7, 7, 2), dtype=bool)
    mask[1:6, 1:6, 1] = True
    mask[3, 3, 1] = False
    contours = contours_of(mask, np.diag([2.0, 2.0, 5.0, 1.0]))
    assert len(contours) == 2 and {float(c[0, 2]) for c in contours} == {5.0}
