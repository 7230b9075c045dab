"""DICOM that a test writes itself: a CT, a PET and an RTSTRUCT of one examination, every value known.

Plain functions. A volume is (columns, rows, slices); slices are written in a shuffled order under meaningless names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SOP = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NAME, HOSPITAL_NUMBER, BIRTHDAY = "Doe^Jane", "4711-000815", "19510203"


@dataclass
class Scan:
    """One series to write.

    Args:
        data: stored integers (columns, rows, slices).
        spacing: between columns, between rows, between slices, in mm.
        origin: LPS position of the first voxel.
        changes: header values by keyword that replace the usual ones; None removes one.
    """

    modality: str
    data: np.ndarray
    spacing: tuple[float, float, float] = (2.0, 2.0, 3.0)
    origin: tuple[float, float, float] = (-20.0, -30.0, 100.0)
    orientation: tuple[float, ...] = AXIAL
    slope: float = 1.0
    intercept: float = 0.0
    changes: Mapping[str, object] = field(default_factory=dict)
    uid: str = field(default_factory=generate_uid)


@dataclass
class Visit:
    """Who and when; what series of one examination share."""

    patient: str = HOSPITAL_NUMBER
    date: str = "20240305"
    study: str = field(default_factory=generate_uid)
    frame: str = field(default_factory=generate_uid)


def pet_header(**changes: object) -> dict[str, object]:
    """A PET in Bq/mL, corrected to the scan's start at 11:00:00, injected at 10:00:00, F-18, 80 kg, 400 MBq."""
    dose = Dataset()
    dose.RadionuclideTotalDose = changes.pop("RadionuclideTotalDose", 4e8)
    dose.RadionuclideHalfLife = changes.pop("RadionuclideHalfLife", 6586.2)
    for name in ("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"):
        value = changes.pop(name, "100000.000000" if name.endswith("StartTime") else None)
        if value is not None:
            setattr(dose, name, value)
    return {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["NORM", "DTIM", "ATTN", "SCAT", "DECY"],
        "PatientWeight": 80.0,
        "SeriesTime": "110000.000000",
        "AcquisitionDate": "20240305",
        "AcquisitionTime": "110000.000000",
        "RadiopharmaceuticalInformationSequence": DicomSequence([dose]),
        **changes,
    }


def write_scan(folder: Path, scan: Scan, visit: Visit) -> list[Path]:
    """The files of a series, one a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(scan.orientation[:3]), np.array(scan.orientation[3:])
    normal = np.cross(row, column)
    paths = []
    for k in np.random.default_rng(3).permutation(scan.data.shape[2]):
        one = _dataset(scan.modality, visit, scan.uid)
        one.ImageOrientationPatient = list(scan.orientation)
        one.ImagePositionPatient = list(np.array(scan.origin) + normal * scan.spacing[2] * int(k))
        one.PixelSpacing = [scan.spacing[1], scan.spacing[0]]
        one.RescaleSlope, one.RescaleIntercept = scan.slope, scan.intercept
        _pixels(one, scan.data[:, :, k].T)
        _change(one, scan.changes)
        paths.append(folder / f"IM{scan.uid[-6:]}{int(k):04d}")
        one.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_structures(
    folder: Path, regions: Mapping[str, Sequence[np.ndarray]], visit: Visit, *, drawn_on: str | None = None
) -> Path:
    """An RTSTRUCT: region name -> closed contours, each (n, 3) in LPS mm."""
    folder.mkdir(parents=True, exist_ok=True)
    one = _dataset("RTSTRUCT", visit, generate_uid())
    one.StructureSetROISequence = DicomSequence()
    one.ROIContourSequence = DicomSequence()
    for number, (name, contours) in enumerate(regions.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = DicomSequence([_contour(points) for points in contours])
        one.StructureSetROISequence.append(region)
        one.ROIContourSequence.append(drawn)
    if drawn_on is not None:
        series, study, frame = Dataset(), Dataset(), Dataset()
        series.SeriesInstanceUID = drawn_on
        study.RTReferencedSeriesSequence = DicomSequence([series])
        frame.FrameOfReferenceUID = visit.frame
        frame.RTReferencedStudySequence = DicomSequence([study])
        one.ReferencedFrameOfReferenceSequence = DicomSequence([frame])
    path = folder / f"RS{one.SeriesInstanceUID[-8:]}.dcm"
    one.save_as(path, enforce_file_format=True)
    return path


def box(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    """A rectangle's contour in LPS mm."""
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])


def _contour(points: np.ndarray) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
    return contour


def _dataset(modality: str, visit: Visit, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SOP[modality]
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    one.PatientName, one.PatientID, one.PatientBirthDate = NAME, visit.patient, BIRTHDAY
    one.Modality, one.SeriesInstanceUID = modality, series
    one.StudyInstanceUID, one.StudyDate, one.SeriesDate = visit.study, visit.date, visit.date
    one.FrameOfReferenceUID = visit.frame
    return one


def _pixels(one: FileDataset, stored: np.ndarray) -> None:
    one.Rows, one.Columns = stored.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.PixelData = np.ascontiguousarray(stored.astype("<i2")).tobytes()


def _change(one: FileDataset, changes: Mapping[str, object]) -> None:
    for name, value in changes.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
