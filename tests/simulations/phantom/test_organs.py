"""Masks with organs: the same images, tumors over what lies under them, and a layout that names all six."""

import numpy as np
import pytest

from client.data.case import label_values
from client.data.layouts import find_cases
from simulations.phantom import cohort
from simulations.phantom.hecktor import draw_case
from simulations.phantom.records import draw_patients


@pytest.fixture(scope="module")
def pair():
    patient = draw_patients(scale=0.01, seed=3)[0]
    return draw_case(patient), draw_case(patient, organs_too=True)


def test_images_and_tumors_stay_and_organs_are_added(pair):
    plain, more = pair
    assert np.array_equal(plain.ct, more.ct) and np.array_equal(plain.pet, more.pet)
    for value in (1, 2):
        assert np.array_equal(plain.mask == value, more.mask == value)
    assert {*np.unique(plain.mask)} <= {0, 1, 2} and {3, 5, 6} <= {*np.unique(more.mask)}


def test_the_layout_names_the_six_structures(pair, tmp_path):
    cohort.write_case(tmp_path, "CHUM-001", pair[1])
    (tmp_path / "layout.yaml").write_text(cohort.LAYOUT)
    [case] = find_cases(tmp_path)
    assert case.center == "CHUM" and set(case.images) == {"CT", "PET"}
    names = ["GTVp", "GTVn", "brain", "benign_node", "parotid", "thyroid"]
    assert label_values(case, names) == [(1,), (2,), (3,), (4,), (5,), (6,)]
