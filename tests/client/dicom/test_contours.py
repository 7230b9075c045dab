"""Contours of every kind a clinic's system writes: each variant fills the same voxels, or what was left out is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from client.dicom.contours import HALF, WITH, WITHOUT, differences, fill
from client.dicom.volume import DicomVolume
from common.errors import DataError
from tests.helpers.dicom import box

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
SCAN = DicomVolume(np.zeros((20, 16, 6), np.float32), np.diag([2.0, 2.0, 3.0, 1.0]), [])  # origin 0, LPS
SQUARE = box(3.0, 11.0, 3.0, 11.0, 6.0)  # centers 4, 6, 8, 10 in both directions, slice 2: 16 voxels


def contour(points, kind="CLOSED_PLANAR", **changes):
    one = Dataset()
    one.ContourGeometricType, one.NumberOfContourPoints = kind, len(points)
    one.ContourData = [f"{v:.4f}" for v in np.asarray(points).ravel()]
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def moved(points, *, x=0.0, z=0.0):
    return np.asarray(points) + np.array([x, 0.0, z])


def filled(*contours, **how):
    return fill(list(contours), SCAN, **how)


VARIANTS = {
    "as it is": lambda p: [contour(p)],
    "stored twice": lambda p: [contour(p), contour(p)],
    "three times": lambda p: [contour(p)] * 3,
    "begun elsewhere": lambda p: [contour(p), contour(np.roll(p, 2, axis=0))],
    "run backwards": lambda p: [contour(p), contour(p[::-1])],
    "with its first point again": lambda p: [contour(np.vstack([p, p[:1]]))],
    "rounded to a tenth": lambda p: [contour(p), contour(np.round(p + 0.03, 1))],
    "of copied slices": lambda p: [contour(p, "INTERPOLATED_PLANAR")],
    "of the XOR type": lambda p: [contour(p, "CLOSEDPLANAR_XOR")],
    "of lower case": lambda p: [contour(p, "closed_planar")],
    "beside a point": lambda p: [contour(p), contour(p[:1], "POINT")],
    "beside an open line": lambda p: [contour(p), contour(p, "OPEN_PLANAR")],
    "beside an empty one": lambda p: [contour(p), contour(p, ContourData=None)],
    "beside one outside": lambda p: [contour(p), contour(moved(p, z=90.0))],
    "beside one between the slices": lambda p: [contour(p), contour(moved(p, x=4.0, z=1.2))],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_one_contour_fills_its_voxels_and_says_what_else_there_was(variant):
    found = filled(*VARIANTS[variant](SQUARE))
    assert found.mask.sum() == 16 and found.mask[2:6, 2:6, 2].all()
    assert bool(found.notes) == (variant not in ("as it is", "with its first point again", "of copied slices",
                                                 "of the XOR type", "of lower case"))  # fmt: skip
    assert found.held_mm3 == pytest.approx(64 * 3, rel=0.02)


@pytest.mark.parametrize(
    ("contours", "sentence"),
    [
        ([contour(SQUARE), contour(SQUARE)], "1 contours are stored twice and count once"),
        (
            [contour(SQUARE[:1], "POINT")],
            "1 contours are of the type POINT, which encloses nothing, and were not drawn",
        ),
        ([contour(SQUARE, "")], "1 contours are of the type not named"),
        ([contour(SQUARE[:2])], "1 contours have fewer than three points"),
        ([contour(SQUARE, ContourData=None)], "1 contours hold no points"),
        ([contour(SQUARE, NumberOfContourPoints=9)], "1 contours have another number of points than they say"),
        ([contour(SQUARE), contour(moved(SQUARE, x=4.0))], "1 contours overlap another in part"),
        ([contour(moved(SQUARE, z=-6.0)), contour(moved(SQUARE, z=6.0))], "3 of the 5 slices between the first and"),
    ],
)
def test_what_is_not_drawn_is_counted(contours, sentence):
    assert any(note.startswith(sentence) for note in filled(*contours).notes)


@pytest.mark.parametrize("data", [["a", "b", "c"], ["1.0", "2.0"], ["nan", "1", "2"] * 3])
def test_points_that_are_no_triples_of_numbers_are_refused(data):
    broken = Dataset()
    broken.ContourGeometricType = "CLOSED_PLANAR"
    broken.add_new("ContourData", "LO", data)
    with pytest.raises(DataError, match="no triples of numbers"):
        filled(broken)


def test_planes_closer_than_the_scans_do_not_cancel_each_other():
    stack = [contour(moved(SQUARE, z=dz)) for dz in (-1.0, 0.0, 1.0)]
    found = filled(*stack)
    assert found.mask.sum() == 16 and "2 contours lie between the CT's slices" in found.notes[0]


@settings(deadline=None, max_examples=40)
@given(size=st.floats(4.0, 9.0), x=st.floats(8, 22), y=st.floats(10, 20), copies=st.integers(1, 4))
def test_copies_never_change_a_ring(size, x, y, copies):
    outer, inner = (box(x - r, x + r, y - r, y + r, 6.0) for r in (size, size - 3.1))
    once = filled(contour(outer), contour(inner))
    many = filled(*[contour(outer)] * copies, *[contour(inner)] * copies)
    assert np.array_equal(once.mask, many.mask) and once.held_mm3 == pytest.approx(many.held_mm3)
    assert once.held_mm3 == pytest.approx(3 * 4 * (size**2 - (size - 3.1) ** 2), rel=1e-2)


def test_contours_through_voxel_centers_are_known_as_such_and_the_choice_is_told():
    through = contour(box(4.0, 10.0, 4.0, 10.0, 6.0))  # 4 x 4 centers with the edge's, 2 x 2 without
    volumes = {edges: filled(through, edges=edges).mask.sum() for edges in (HALF, WITH, WITHOUT)}
    assert volumes == {HALF: 9, WITH: 16, WITHOUT: 4}
    [note] = [n for n in differences(filled(through), SCAN) if "voxel centers" in n]
    assert "0.11 ml, 0.19 ml with all of these voxels and 0.05 ml with none" in note
    assert differences(filled(contour(SQUARE)), SCAN) == []


def test_a_hole_keeps_its_edge_where_edges_count():
    ring = [contour(box(1.0, 21.0, 1.0, 21.0, 6.0)), contour(box(6.0, 14.0, 6.0, 14.0, 6.0))]
    assert filled(*ring, edges=WITH).mask.sum() == 100 - 3 * 3 and filled(*ring, edges=WITHOUT).mask.sum() == 100 - 25


def test_a_label_that_is_not_what_the_contours_hold_is_told():
    sliver = contour(box(3.9, 4.1, 3.0, 11.0, 6.0))  # a tenth of a column, and the whole column is drawn
    [note] = differences(filled(sliver), SCAN)
    assert note == "the contours hold 0.00 ml, the label 0.05 ml"
