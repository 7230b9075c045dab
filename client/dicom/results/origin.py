"""Where an answer belongs: the examination whose images it was computed of, and who computed it.

Every object that is written takes patient, study and frame of reference from here, so that it appears beside the
images in the hospital's archive. It holds the patient's identifiers and therefore stays at the hospital.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from client.dicom.series import Examination, Series, examination_of
from client.dicom.suv import suv_of
from client.dicom.values import number
from client.dicom.volume import DicomVolume, read_slices, to_ras

MANUFACTURER = "fedgraft"
RESEARCH = "Research use only, not for diagnosis"
EMPTY = (  # type 2 of the patient and study modules: must stand there, may be empty
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName",
    "StudyDate", "StudyID", "StudyTime",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """One CT series: its headers by position along the slices' normal, and the affine from voxel to LPS mm."""

    headers: list[Dataset]
    affine: np.ndarray
    shape: tuple[int, int, int]  # columns, rows, slices

    @cached_property
    def images(self) -> list[Dataset]:
        """The headers with every element that an object of this study must repeat, without pixels.

        A slice is as thick as the CT says, or as far from the next one as the grid has it where the CT is silent.
        """
        between = float(np.linalg.norm(self.affine[:3, 2]))
        return [_complete(header, thickness_mm=number(header, "SliceThickness") or between) for header in self.headers]

    @property
    def series(self) -> str:
        return str(self.headers[0].SeriesInstanceUID)


@dataclass(frozen=True)
class Author:
    """Who says it: an adapter, and what is known of how good it is.

    Args:
        key: the adapter's SHA-256.
        tested: its test score in words (`common.store.tested.in_words`).
        notes: what else must be said of its answers.
    """

    lineage: str
    key: str
    base: str
    version: str
    tested: str
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, str]:
        """What names the algorithm beyond doubt, and how it was tested."""
        known = {"adapter": self.key, "frozen model": self.base, "test score": self.tested, "use": RESEARCH}
        return known | {f"note {number}": note for number, note in enumerate(self.notes, start=1)}

    @property
    def name(self) -> str:
        return f"{MANUFACTURER} {self.lineage}"[:64]

    @property
    def software(self) -> str:
        return f"{self.version} adapter {self.key[:12]}"[:64]


def images_of(ct: DicomVolume, pet: DicomVolume | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Modality -> voxels and affine (RAS) as cases hold them: CT as whole HU, PET as SUV by body weight.

    Raises:
        DataError: the PET cannot be brought to SUV.
    """
    found = {"CT": (np.rint(ct.data.clip(-32768, 32767)).astype(np.int16), to_ras(ct.affine))}
    if pet is not None:
        found["PET"] = (pet.data * np.float32(suv_of(pet.headers).factor), to_ras(pet.affine))
    return found


def read_examination(
    series: Sequence[Series], *, which: str = "only"
) -> tuple[Origin, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A patient's CT and PET as volumes, and where answers about them belong.

    Raises:
        DataError: with every problem: several examinations, a series of mixed geometry, a PET without dose.
    """
    examination: Examination = examination_of(series, which=which)
    ct = read_slices(examination.ct.files, role="CT")
    pet = None if examination.pet is None else read_slices(examination.pet.files, role="PET")
    x, y, z = ct.data.shape
    return Origin(ct.headers, ct.affine, (x, y, z)), images_of(ct, pet)


def save(path: Path, one: Dataset) -> None:
    """Write an object whole or not at all."""
    from io import BytesIO

    from common.files import write_bytes

    content = BytesIO()
    one.save_as(content, enforce_file_format=True)
    write_bytes(path, content.getvalue())


def _complete(header: Dataset, *, thickness_mm: float) -> Dataset:
    one = Dataset(header)  # of its own, with the same elements
    one.pop("PixelData", None)
    one.file_meta, one.SliceThickness = header.file_meta, thickness_mm
    for name in EMPTY:
        if name not in one:
            setattr(one, name, "")
    if not one.get("FrameOfReferenceUID"):
        one.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(one.SeriesInstanceUID)])  # one for all its slices
    return one
