"""A mask as an RT Structure Set, for treatment planning systems: closed outlines slice by slice on the CT's slices.

An outline runs half-way between a voxel's center and its neighbors', so that whoever fills it by centers gets the
mask's voxels back. A hole is an outline of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import contourpy
import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from client.dicom.results.codes import Coded
from client.dicom.results.origin import EMPTY, MANUFACTURER, RESEARCH, Author, Origin

RTSTRUCT = UID("1.2.840.10008.5.1.4.1.1.481.3")
STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  # detached study management, retired: what references a study
SERIES_NUMBER = 9002
COLORS = ((230, 25, 75), (60, 180, 75), (67, 99, 216), (245, 130, 49), (145, 30, 180), (66, 212, 244))


def structure_set(
    masks: Mapping[str, np.ndarray], origin: Origin, codes: Mapping[str, Coded], author: Author, *, now: datetime
) -> FileDataset:
    """The RTSTRUCT of structures.

    Args:
        masks: structure -> bool (columns, rows, slices) on the CT's own voxels; at least one voxel in each.
    """
    one = _empty(origin, author, now)
    one.StructureSetLabel, one.StructureSetName = "PREDICTION", author.name
    one.StructureSetDescription = f"{RESEARCH}; adapter {author.key}; {author.tested}"[:1024]
    one.StructureSetDate, one.StructureSetTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    one.ApprovalStatus = "UNAPPROVED"
    one.ReferencedFrameOfReferenceSequence = DicomSequence([_frame(origin)])
    one.StructureSetROISequence, one.ROIContourSequence = DicomSequence(), DicomSequence()
    one.RTROIObservationsSequence = DicomSequence()
    for number, (name, mask) in enumerate(masks.items(), start=1):
        one.StructureSetROISequence.append(_region(number, name, origin, author))
        one.ROIContourSequence.append(_drawn(number, mask, origin))
        one.RTROIObservationsSequence.append(_observed(number, codes[name]))
    return one


def outlines(mask: np.ndarray, affine: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Slice number and closed contour (n, 3) in mm of each outline around a mask's voxels.

    Args:
        mask: bool (columns, rows, slices).
        affine: (4, 4), from voxel to mm.
    """
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        padded = np.pad(mask[:, :, k], 1).astype(float)
        for line in contourpy.contour_generator(z=padded).lines(0.5):
            points = np.asarray(line)[:-1, ::-1] - 1  # contourpy gives (row of the second axis first); the end repeats
            voxels = np.column_stack([points, np.full(len(points), k)])
            yield int(k), nib.affines.apply_affine(affine, voxels)


def _empty(origin: Origin, author: Author, now: datetime) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTSTRUCT, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    source = origin.images[0]
    one.SpecificCharacterSet = source.get("SpecificCharacterSet", "ISO_IR 192")
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name in (*EMPTY, "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(one, name, source[name].value)
    one.Modality, one.SeriesInstanceUID, one.SeriesNumber = "RTSTRUCT", generate_uid(), SERIES_NUMBER
    one.SeriesDescription, one.InstanceNumber = f"{author.name}: research use"[:64], 1
    one.Manufacturer, one.ManufacturerModelName, one.SoftwareVersions = MANUFACTURER, author.name, author.software
    one.InstanceCreationDate, one.InstanceCreationTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    one.PositionReferenceIndicator = source.get("PositionReferenceIndicator", "")
    one.OperatorsName = ""
    return one


def _frame(origin: Origin) -> Dataset:
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = origin.series
    series.ContourImageSequence = DicomSequence([_image(origin, k) for k in range(len(origin.images))])
    study.ReferencedSOPClassUID = STUDY_MANAGEMENT
    study.ReferencedSOPInstanceUID = origin.images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = DicomSequence([series])
    frame.FrameOfReferenceUID = origin.images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = DicomSequence([study])
    return frame


def _image(origin: Origin, k: int) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID = origin.images[k].SOPClassUID
    image.ReferencedSOPInstanceUID = origin.images[k].SOPInstanceUID
    return image


def _region(number: int, name: str, origin: Origin, author: Author) -> Dataset:
    region = Dataset()
    region.ROINumber, region.ROIName = number, name[:64]
    region.ReferencedFrameOfReferenceUID = origin.images[0].FrameOfReferenceUID
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = f"{author.name} {author.software}"[:64]
    return region


def _drawn(number: int, mask: np.ndarray, origin: Origin) -> Dataset:
    drawn = Dataset()
    drawn.ROIDisplayColor = list(COLORS[(number - 1) % len(COLORS)])
    drawn.ReferencedROINumber = number
    drawn.ContourSequence = DicomSequence([_contour(origin, k, points) for k, points in outlines(mask, origin.affine)])
    return drawn


def _contour(origin: Origin, k: int, points: np.ndarray) -> Dataset:
    contour = Dataset()
    contour.ContourImageSequence = DicomSequence([_image(origin, k)])
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
    return contour


def _observed(number: int, code: Coded) -> Dataset:
    seen = Dataset()
    seen.ObservationNumber = seen.ReferencedROINumber = number
    seen.RTROIInterpretedType, seen.ROIInterpreter = code.interpreted, ""
    seen.RTROIIdentificationCodeSequence = DicomSequence([_code(code.type)])
    return seen


def _code(code: Code) -> Dataset:
    one = Dataset()
    one.CodeValue, one.CodingSchemeDesignator, one.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return one
