"""Answers as DICOM: what other readers than the writer see of them, voxel by voxel and number by number."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from highdicom.sr import Measurement
from pydicom import dcmread
from pydicom.sr.codedict import codes

from client.dicom.results.codes import CODES, coded, read_codes
from client.dicom.results.origin import RESEARCH, Author, Origin, read_examination
from client.dicom.results.report import CURVE, RISK
from client.dicom.results.writing import write_mask, write_report
from client.dicom.series import find_series
from client.dicom.structures import draw
from client.dicom.volume import read_slices
from common.errors import ConfigError, DataError
from tests.helpers.dicom import BIRTHDAY, HOSPITAL_NUMBER, Scan, Visit, write_scan

SHAPE = (7, 5, 6)  # columns, rows, slices: 35 bits a frame, so that frames of a BINARY SEG begin inside bytes
NOW = datetime(2026, 11, 28, 12, 30)
AUTHOR = Author(
    "tumour_ct", "ab" * 32, "cd" * 32, "0.1.0", "tested: aggregated Dice 0.71 on 9 cases of CHUM", ("note",)
)
OBLIQUE = (0.9396926, 0.0, -0.3420201, 0.0, 1.0, 0.0)


def origin_of(folder: Path, *, visit: Visit | None = None, **how) -> Origin:
    data = np.random.default_rng(1).integers(0, 2000, SHAPE)
    write_scan(folder, Scan("CT", data, intercept=-1024.0, **how), visit or Visit())
    [series] = find_series(folder).patients.values()
    return read_examination(series)[0]


def masks_of(kind: str) -> dict[str, np.ndarray]:
    """Masks of two structures on SHAPE."""
    p, n = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    if kind == "one slice":
        p[2:5, 1:4, 3] = True
    elif kind == "every border":
        p[0], p[-1], n[:, 0], n[:, :, -1] = True, True, True, True
    elif kind == "overlap":
        p[1:5, 1:4, 1:4], n[3:6, 2:5, 2:5] = True, True
    elif kind == "scattered":
        p, n = np.random.default_rng(2).random((2, *SHAPE)) < 0.3
    elif kind == "hole":
        p[1:6, 0:5, 2], p[3, 2, 2] = True, False
    return {"GTVp": p, "GTVn": n}


def read_by_pydicom(path: Path, origin: Origin) -> dict[str, np.ndarray]:
    """The masks of a SEG by pydicom's frames and the frames' own positions: no line of highdicom."""
    one = dcmread(path)
    frames = np.reshape(one.pixel_array, (-1, one.Rows, one.Columns))
    labels = {segment.SegmentNumber: segment.SegmentLabel for segment in one.SegmentSequence}
    found = {label: np.zeros(origin.shape, bool) for label in labels.values()}
    for frame, place in zip(frames, one.PerFrameFunctionalGroupsSequence, strict=True):
        corner = [*place.PlanePositionSequence[0].ImagePositionPatient, 1.0]
        i, j, k, _ = np.linalg.solve(origin.affine, np.array(corner, float))
        assert (round(i, 4), round(j, 4)) == (0, 0) and abs(k - round(k)) < 1e-4
        label = labels[place.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        found[label][:, :, round(k)] = frame.T > 0
    return found


@pytest.mark.parametrize("how", [{}, {"orientation": OBLIQUE, "spacing": (1.5, 2.5, 4.0)}], ids=["axial", "oblique"])
@pytest.mark.parametrize("kind", ["one slice", "every border", "overlap", "scattered", "hole"])
def test_masks_come_back_voxel_for_voxel_from_seg_and_rtstruct(tmp_path, kind, how):
    origin, masks = origin_of(tmp_path / "ct", **how), masks_of(kind)
    names = write_mask(tmp_path / "case", masks, origin, codes=CODES, author=AUTHOR, now=NOW)
    assert names == ["case.seg.dcm", "case.rtstruct.dcm"]
    found = read_by_pydicom(tmp_path / "case.seg.dcm", origin)
    assert set(found) == {name for name, mask in masks.items() if mask.any()}
    assert all(np.array_equal(found[name], masks[name]) for name in found)
    scan = read_slices(sorted((tmp_path / "ct").iterdir()), role="CT")
    for name in found:  # our own reader of clinical RTSTRUCT, which knows nothing of how these were made
        drawn = draw([tmp_path / "case.rtstruct.dcm"], scan, names={name: [name.lower()]})
        assert np.array_equal(drawn.label > 0, masks[name])


def test_both_objects_stand_in_the_study_of_the_ct_with_codes_and_say_who_made_them(tmp_path):
    visit = Visit()
    origin = origin_of(tmp_path / "ct", visit=visit)
    write_mask(tmp_path / "case", masks_of("overlap"), origin, codes=CODES, author=AUTHOR, now=NOW)
    for name in ("seg", "rtstruct"):
        one = dcmread(tmp_path / f"case.{name}.dcm")
        assert (one.StudyInstanceUID, one.FrameOfReferenceUID) == (visit.study, visit.frame)
        assert (one.PatientID, one.PatientBirthDate, one.StudyDate) == (HOSPITAL_NUMBER, BIRTHDAY, visit.date)
        assert one.SoftwareVersions == "0.1.0 adapter abababababab" and "research use" in one.SeriesDescription
    seg = dcmread(tmp_path / "case.seg.dcm")
    assert (seg.SegmentationType, seg.ContentDescription) == ("BINARY", RESEARCH)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == origin.series
    types = {s.SegmentLabel: s.SegmentedPropertyTypeCodeSequence[0] for s in seg.SegmentSequence}
    assert {name: (t.CodeValue, t.CodingSchemeDesignator) for name, t in types.items()} == {
        "GTVp": ("86049000", "SCT"),
        "GTVn": ("14799000", "SCT"),
    }
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert AUTHOR.key in algorithm.AlgorithmParameters and AUTHOR.tested in algorithm.AlgorithmParameters
    planned = dcmread(tmp_path / "case.rtstruct.dcm")
    assert [r.RTROIInterpretedType for r in planned.RTROIObservationsSequence] == ["GTV", "GTV"]
    assert AUTHOR.key in planned.StructureSetDescription and AUTHOR.tested in planned.StructureSetDescription
    own = {header.SOPInstanceUID for header in origin.headers}
    drawn_on = [c.ContourImageSequence[0] for r in planned.ROIContourSequence for c in r.ContourSequence]
    assert {image.ReferencedSOPInstanceUID for image in drawn_on} < own


def test_nothing_found_is_no_object(tmp_path):
    origin = origin_of(tmp_path / "ct")
    empty = {"GTVp": np.zeros(SHAPE, bool)}
    assert write_mask(tmp_path / "case", empty, origin, codes=CODES, author=AUTHOR, now=NOW) == []
    assert list(tmp_path.glob("*.dcm")) == []


def items_of(content):
    for item in content:
        yield item
        yield from items_of(item.get("ContentSequence", []))


def test_a_risk_and_its_curve_come_back_as_the_doubles_they_were(tmp_path):
    origin = origin_of(tmp_path / "ct")
    answer = {"risk": np.float32(1 / 3), "days": [0.0, 912.5, 1825.0], "relapse_free": [1.0, 2 / 3, 0.1 + 0.2]}
    assert write_report(tmp_path / "case", answer, origin, author=AUTHOR) == ["case.sr.dcm"]
    one = dcmread(tmp_path / "case.sr.dcm")
    items = list(items_of(one.ContentSequence))
    numbers = [item for item in items if item.ValueType == "NUM"]
    by_name: dict[str, list[float]] = {}
    for item in numbers:
        value = item.MeasuredValueSequence[0]
        exact = float(value.get("FloatingPointValue", value.NumericValue))
        by_name.setdefault(item.ConceptNameCodeSequence[0].CodeValue, []).append(exact)
    assert by_name[RISK.value] == [float(np.float32(1 / 3))]
    assert by_name[CURVE.value] == answer["relapse_free"]
    assert by_name["128740"] == answer["days"]  # DCM: longitudinal temporal offset from event
    said = {str(item.get("TextValue", "")) for item in items}
    assert f"adapter: {AUTHOR.key}" in said and f"test score: {AUTHOR.tested}" in said
    meanings = [c.CodeMeaning for item in items for c in item.get("ConceptCodeSequence", [])]
    assert meanings.count(RESEARCH) == 4  # the risk and three points
    assert (one.PatientID, one.StudyInstanceUID) == (HOSPITAL_NUMBER, origin.images[0].StudyInstanceUID)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(1)])
def test_highdicom_takes_no_numpy_numbers(value):
    """TRAPS 4; why every measurement is made a Python float first."""
    with pytest.raises(TypeError, match="must have type"):
        Measurement(name=RISK, value=value, unit=codes.UCUM.NoUnits)


def test_a_structure_without_a_code_is_one_sentence_with_the_way_out():
    with pytest.raises(
        ConfigError, match=r"The structure 'GTVq' has no code .*--codes FILE\.yaml.*Did you mean 'GTV"
    ) as e:
        coded(["GTVp", "GTVq"])
    assert "\n" not in str(e.value)


def test_a_hospitals_own_codes_stand_beside_the_known_ones(tmp_path):
    file = tmp_path / "codes.yaml"
    file.write_text("parotid: {category: [91723000, SCT, Anatomical Structure], type: [45289007, SCT, Parotid gland]}")
    found = coded(["GTVp", "parotid"], read_codes(file))
    assert (found["parotid"].type.value, found["parotid"].region) == ("45289007", None)
    file.write_text("parotid: {category: gland, type: [45289007, SCT]}\nlip: {type: [1, SCT, Lip]}")
    with pytest.raises(ConfigError) as error:
        read_codes(file)
    assert len(str(error.value).splitlines()) == 3


def test_slices_of_different_spacing_in_one_series_are_one_sentence(tmp_path):
    visit, uid = Visit(), "1.2.826.0.1.3680043.2.1"
    for place, spacing in ((0, 2.0), (1, 3.0)):
        scan = Scan("CT", np.zeros(SHAPE), (spacing, spacing, 3.0), (0, 0, 18.0 * place), uid=uid)
        write_scan(tmp_path / str(place), scan, visit)
    [series] = find_series(tmp_path).patients.values()
    with pytest.raises(DataError) as error:
        read_examination(series)
    assert error.value.problems == ["The CT series mixes slices of different pixel spacing; export one reconstruction."]


def test_a_code_is_what_was_typed_and_a_file_that_is_no_text_is_a_sentence(tmp_path):
    file = tmp_path / "codes.yaml"
    file.write_text("larynx: {category: [0012, 99OWN, Organ], type: [1.10, 99OWN, Larynx]}")
    larynx = read_codes(file)["larynx"]
    assert (larynx.category.value, larynx.type.value) == ("0012", "1.10")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"codes\.yaml cannot be read"):
        read_codes(file)
