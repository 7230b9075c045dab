"""Contours become labels by the even-odd rule at voxel centers; names decide which label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from client.dicom.contours import inside
from client.dicom.names import NAMES, match_names
from client.dicom.structures import draw
from client.dicom.volume import DicomVolume
from common.errors import DataError
from tests.helpers.dicom import Visit, box, write_structures

CT = DicomVolume(np.zeros((20, 16, 6), np.float32), np.diag([2.0, 2.0, 3.0, 1.0]), [])  # origin 0, LPS


@settings(deadline=None)
@given(
    corners=st.lists(st.tuples(st.floats(-3, 18), st.floats(-3, 18)), min_size=3, max_size=9),
    shift=st.floats(0.013, 0.487),
)
def test_filling_agrees_with_matplotlibs_outline(corners, shift):
    polygon = np.array(corners) + shift  # keep corners off voxel centers, where the two conventions differ
    centers = np.stack(np.meshgrid(np.arange(15), np.arange(12), indexing="ij"), axis=-1).reshape(-1, 2)
    expected = Outline(polygon, closed=False).contains_points(centers).reshape(15, 12)
    touching = _near_an_edge(polygon, centers).reshape(15, 12)
    assert np.array_equal(inside(polygon, (15, 12)) | touching, expected | touching)


def _near_an_edge(polygon, points):
    near = np.zeros(len(points), dtype=bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        length = max(float(np.dot(b - a, b - a)), 1e-12)
        t = np.clip((points - a) @ (b - a) / length, 0, 1)
        near |= np.linalg.norm(points - (a + t[:, None] * (b - a)), axis=1) < 1e-6
    return near


def test_a_rectangle_holds_exactly_the_voxels_whose_centers_it_holds(tmp_path):
    path = write_structures(tmp_path, {"GTVp": [box(3.0, 9.0, 5.0, 11.0, 6.0)]}, Visit())  # centers 4 6 8, 6 8 10
    label = draw([path], CT).label
    assert sorted(map(tuple, np.argwhere(label == 1))) == [(i, j, 2) for i in (2, 3, 4) for j in (3, 4, 5)]


def test_a_ring_of_two_contours_has_its_hole(tmp_path):
    ring = [box(1.0, 21.0, 1.0, 21.0, 3.0), box(7.0, 15.0, 7.0, 15.0, 3.0)]
    label = draw([write_structures(tmp_path, {"GTV N": ring}, Visit())], CT).label
    assert (label == 2).sum() == 10 * 10 - 4 * 4 and label[5, 5, 1] == 0 and label[1, 1, 1] == 2


def test_the_primary_wins_where_both_are_and_several_nodes_are_one_label(tmp_path):
    regions = {
        "GTVn left": [box(1.0, 9.0, 1.0, 5.0, 0.0)],
        "GTVp": [box(1.0, 5.0, 1.0, 5.0, 0.0)],
        "GTVn right": [box(21.0, 25.0, 1.0, 5.0, 0.0)],
        "Parotid": [box(1.0, 39.0, 1.0, 29.0, 9.0)],
    }
    drawn = draw([write_structures(tmp_path, regions, Visit())], CT)
    assert [(drawn.label == n).sum() for n in (1, 2)] == [4, 4 + 4] and not drawn.label[:, :, 3].any()
    assert drawn.used == {"GTVp": ["GTVp"], "GTVn": ["GTVn left", "GTVn right"]} and drawn.unused == ["Parotid"]


@pytest.mark.parametrize(
    ("name", "structure"),
    [("GTVp", "GTVp"), ("gtv-T", "GTVp"), ("GTV", "GTVp"), ("GTV  LN 3", "GTVn"), ("GTVn_2", "GTVn"), ("PTV", None)],
)
def test_clinics_names_are_known(name, structure):
    found = match_names({1: name}, NAMES)
    assert (next(iter(found.chosen), None), found.unused) == (structure, [] if structure else [name])


def test_a_name_that_fits_both_structures_is_refused():
    with pytest.raises(DataError, match="The region 'Tumor' fits the names of GTVp and GTVn"):
        match_names({1: "Tumor"}, {"GTVp": ["tum*"], "GTVn": ["*mor"]})


def test_contours_off_the_ct_are_named_and_wholly_foreign_ones_refused(tmp_path):
    both = {"GTVp": [box(3.0, 9.0, 5.0, 11.0, 6.0), box(3.0, 9.0, 5.0, 11.0, 60.0)]}
    drawn = draw([write_structures(tmp_path, both, Visit())], CT)
    assert drawn.notes == ["GTVp: 1 contours lie outside the CT and were left out"] and drawn.label.sum() == 9
    foreign = write_structures(tmp_path / "b", {"GTVp": [box(3.0, 9.0, 5.0, 11.0, 600.0)]}, Visit())
    with pytest.raises(DataError, match="they belong to another examination"):
        draw([foreign], CT)


def test_contours_across_slices_are_refused(tmp_path):
    tilted = box(3.0, 9.0, 5.0, 11.0, 6.0)
    tilted[0, 2] = 9.0
    with pytest.raises(DataError, match="not in the planes of the CT"):
        draw([write_structures(tmp_path, {"GTVp": [tilted]}, Visit())], CT)
