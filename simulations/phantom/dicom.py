"""DICOM as a hospital exports it: CT, PET and RTSTRUCT of one examination, made from values that are all known.

`export_cohort` turns cases of a cohort in the HECKTOR layout into what a PACS would give, under a made-up person, so
that `python -m client prepare` can be tried and tested without any patient. A volume is (columns, rows, slices); slices
are written in a shuffled order under meaningless names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from client.data.case import Case
from client.dicom.results.structure_set import outlines
from common.data.batch import CT, PET

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


DOSE: dict[str, object] = {
    "RadionuclideTotalDose": 4e8,
    "RadionuclideHalfLife": 6586.2,
    "RadiopharmaceuticalStartTime": "100000.000000",
    "RadiopharmaceuticalStartDateTime": None,
}


def pet_header(changes: Mapping[str, object]) -> dict[str, object]:
    """A PET in Bq/mL, corrected to the scan's start at 11:00:00, injected at 10:00:00, F-18, 80 kg, 400 MBq.

    Args:
        changes: header values by keyword, also of the dose, that replace these; None removes one.
    """
    dose = Dataset()
    for name, value in (DOSE | {k: v for k, v in changes.items() if k in DOSE}).items():
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
        **{name: value for name, value in changes.items() if name not in DOSE},
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


SUV_PER_BQ = 80_000 / (4e8 * 2 ** (-3600 / 6586.2))  # of `pet_header`
PET_STEP_SUV = 0.001  # stored integers


def export_cohort(cases: Sequence[Case], folder: Path) -> int:
    """Write cases as DICOM, one made-up person each, all in one folder as a PACS gives them; how many there were."""
    for number, case in enumerate(cases, start=1):
        export_case(case, folder, Visit(patient=_hospital_number(number), date=f"2024{1 + number % 12:02d}05"))
    return len(cases)


def export_tables(cases: Sequence[Case], root: Path, folder: Path) -> list[Path]:
    """Copies of a cohort's tables with the made-up hospital numbers of `export_cohort` in place of codes."""
    numbers = {case.patient: _hospital_number(number) for number, case in enumerate(cases, start=1)}
    written = []
    for path in sorted(root.glob("*.csv")):
        frame = pd.read_csv(path, dtype=str)
        own = frame[frame["PatientID"].isin(numbers)]
        folder.mkdir(parents=True, exist_ok=True)
        own.assign(PatientID=own["PatientID"].map(numbers)).to_csv(folder / path.name, index=False)
        written.append(folder / path.name)
    return written


def _hospital_number(number: int) -> str:
    return f"{4710 + number:07d}"


def export_case(case: Case, folder: Path, visit: Visit) -> None:
    """CT in HU (offset 1024), PET in Bq/mL as `pet_header` says, and structures as contours between voxel centers."""
    ct, affine = _lps(case.images[CT])
    scan = Scan("CT", ct + 1024, *_place(affine), intercept=-1024.0)
    write_scan(folder, scan, visit)
    if PET in case.images:
        suv, place = _lps(case.images[PET])
        slope = PET_STEP_SUV / SUV_PER_BQ
        stored = np.rint(suv / PET_STEP_SUV).clip(0, 32767)
        write_scan(folder, Scan("PT", stored, *_place(place), slope=slope, changes=pet_header({})), visit)
    if case.label is not None:
        label, _ = _lps(case.label)
        regions = {name: contours_of(label == value, affine) for name, value in (("GTVp", 1), ("GTVn", 2))}
        write_structures(folder, {n: c for n, c in regions.items() if c}, visit, drawn_on=scan.uid)


def contours_of(mask: np.ndarray, affine: np.ndarray) -> list[np.ndarray]:
    """Closed contours (n, 3) in mm around the voxels of a mask, slice by slice; holes are contours of their own."""
    return [points for _, points in outlines(mask, affine)]


def _lps(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ordered as DICOM orders axial slices (to the left, to the back, upwards), and the affine to LPS mm."""
    image: Any = nib.as_closest_canonical(nib.load(path))
    data = np.asarray(image.dataobj)[::-1, ::-1]
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = np.array(data.shape[:2]) - 1
    return data, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine @ flip


def _place(affine: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Spacing and origin of an upright grid."""
    x, y, z = (float(n) for n in np.diag(affine)[:3])
    a, b, c = (float(n) for n in affine[:3, 3])
    return (x, y, z), (a, b, c)


def _contour(points: np.ndarray) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
    return contour


def _dataset(modality: str, visit: Visit, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(SOP[modality])
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
