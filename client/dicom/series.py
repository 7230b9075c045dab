"""Series: the DICOM files of a folder by patient, and which CT, PET and RTSTRUCT belong together.

Only headers are read here. A patient's examinations are told apart by study and frame of reference: CT and PET of one
examination share the latter, and an RTSTRUCT names the series that it was drawn on: the CT, or the PET that lies in the
same frame of reference. What is no slice of a scan (localizers, a scanner's dose page) is counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from client.data.folders import files_below
from client.dicom.moments import date_of
from client.dicom.values import ODD, has, items, text, words
from common.errors import DataError

CT, PT, RTSTRUCT = "CT", "PT", "RTSTRUCT"
ONLY, EARLIEST, LATEST = "only", "earliest", "latest"
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "NumberOfFrames")


@dataclass
class Series:
    """The files of one series, in no order."""

    patient: str
    modality: str
    uid: str
    study: str
    date: str
    frame: str  # of reference
    files: list[Path] = field(default_factory=list)
    references: frozenset[str] = frozenset()  # series that an RTSTRUCT was drawn on
    left_out: int = 0  # files that are no slices of a scan: localizers, and pages without any geometry
    born: str = ""


@dataclass(frozen=True)
class Examination:
    """What becomes one case."""

    ct: Series
    pet: Series | None
    structures: Series | None
    left_out: int = 0  # RTSTRUCT series of this patient that were not used: of another CT, or beside one of this CT
    drawn_on_pet: bool = False

    @property
    def date(self) -> str:
        return self.ct.date


@dataclass
class Found:
    """What a folder holds."""

    patients: dict[str, list[Series]] = field(default_factory=dict)
    other_files: int = 0
    other_modalities: dict[str, int] = field(default_factory=dict)


def find_series(folder: Path) -> Found:
    """Every CT, PET and RTSTRUCT series below a folder, by patient.

    Raises:
        DataError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise DataError(f"The DICOM folder '{folder}' does not exist; name the folder that was exported from the PACS.")
    found = Found()
    series: dict[tuple[str, str, str], Series] = {}
    for path, header in _headers(folder, found):
        modality = text(header, "Modality").upper()
        if modality not in (CT, PT, RTSTRUCT):
            found.other_modalities[modality] = found.other_modalities.get(modality, 0) + 1
            continue
        uid, patient = text(header, "SeriesInstanceUID") or str(path.parent), text(header, "PatientID")
        key = (patient, modality, uid)  # a number that two patients share by mistake must not mix them
        if key not in series:
            series[key] = _series(header, modality, uid)
            found.patients.setdefault(patient, []).append(series[key])
        if modality != RTSTRUCT and _is_no_slice(header):
            series[key].left_out += 1
        else:
            series[key].files.append(path)
    if not found.patients:
        raise DataError(
            f"No DICOM CT, PET or RTSTRUCT was found below '{folder}' ({found.other_files} other files); name the "
            "folder that was exported from the PACS."
        )
    return found


def examination_of(series: Sequence[Series], *, which: str = ONLY) -> Examination:
    """A patient's CT, with the PET and the RTSTRUCT that belong to it.

    Args:
        which: of several examinations, ``only`` refuses, ``earliest`` and ``latest`` choose by study date.

    Raises:
        DataError: there is no CT, or it cannot be said which series belong together.
    """
    if len({one.born for one in series} - {""}) > 1:
        raise DataError(
            "Series under one patient's number name different dates of birth: two people may share it; export one "
            "person, or correct the number or the date."
        )
    images = [one for one in series if one.files]
    scans = [one for one in images if one.modality == CT]
    if not scans:
        pages = sum(one.left_out for one in series if one.modality == CT)
        seen = f" ({pages} CT images are localizers or pages without a place in space)" if pages else ""
        raise DataError(f"There is no CT series{seen}; export the CT of the examination too.")
    pets = [one for one in images if one.modality == PT]
    drawings = [one for one in series if one.modality == RTSTRUCT]
    examinations = _examinations(scans, pets, drawings)
    if len(examinations) > 1 and which == ONLY:
        raise DataError(
            f"There are {len(examinations)} examinations; choose with --examination earliest or latest, or export one."
        )
    if len(examinations) > 1 and len({one.date for one in examinations} - {""}) < len(examinations):
        raise DataError(
            f"There are {len(examinations)} examinations without dates that tell which is {which}; export one."
        )
    ordered = sorted(examinations, key=lambda one: one.date)
    return ordered[-1] if which == LATEST else ordered[0]


def _examinations(scans: Sequence[Series], pets: Sequence[Series], drawings: Sequence[Series]) -> list[Examination]:
    """One for each pair of study and frame of reference that has a PET, or, without any PET, a CT."""
    places = sorted({(one.study, one.frame) for one in (pets or scans)})
    found = []
    for study, frame in places:
        here = [one for one in scans if (one.study, one.frame) == (study, frame)]
        if not here:
            raise DataError(
                "A PET has no CT in its frame of reference, so nothing says how the two lie to each other; export the "
                "CT that was taken with it."
            )
        drawn = [one for one in drawings if one.references & {ct.uid for ct in here}]
        drawn = drawn or [one for one in drawings if not one.references and one.frame == frame]
        ct, pet = _one_ct(here, drawn), _one_pet(pets, study, frame)
        own = [one for one in drawn if not one.references or ct.uid in one.references]
        on_pet = [] if own or pet is None else [one for one in drawings if pet.uid in one.references]
        used = own or on_pet
        if len(used) > 1:
            scan = "PET" if on_pet else "CT"
            raise DataError(f"There are {len(used)} RTSTRUCT series for one {scan}; export the one that counts.")
        found.append(Examination(ct, pet, used[0] if used else None, len(drawings) - len(used), bool(on_pet)))
    return found


def _is_no_slice(header: Dataset) -> bool:
    """A localizer, or a page that lies nowhere (a dose report as a picture). An *empty* geometry is a broken slice."""
    return "LOCALIZER" in words(header, "ImageType") or not any(has(header, name) for name in GEOMETRY)


def _one_ct(here: Sequence[Series], drawn: Sequence[Series]) -> Series:
    named = [ct for ct in here if any(ct.uid in drawing.references for drawing in drawn)]
    chosen = named or list(here)
    if len(chosen) > 1:
        raise DataError(
            f"{len(chosen)} CT series belong to one examination and no RTSTRUCT names one of them; export the one that "
            "was used for attenuation correction or contouring."
        )
    return chosen[0]


def _one_pet(pets: Sequence[Series], study: str, frame: str) -> Series | None:
    here = [one for one in pets if (one.study, one.frame) == (study, frame)]
    if len(here) > 1:
        raise DataError(
            f"{len(here)} PET series belong to one examination (for instance with and without attenuation correction); "
            "export the corrected one."
        )
    return here[0] if here else None


def _headers(folder: Path, found: Found) -> Iterator[tuple[Path, Dataset]]:
    for path in files_below(folder):
        try:
            yield path, dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, *ODD):
            found.other_files += 1


def _series(header: Dataset, modality: str, uid: str) -> Series:
    frame = text(header, "FrameOfReferenceUID")
    references: set[str] = set()
    for item in items(header, "ReferencedFrameOfReferenceSequence"):
        frame = frame or text(item, "FrameOfReferenceUID")
        for study in items(item, "RTReferencedStudySequence"):
            references |= {text(s, "SeriesInstanceUID") for s in items(study, "RTReferencedSeriesSequence")}
    return Series(
        patient=text(header, "PatientID"),
        modality=modality,
        uid=uid,
        study=text(header, "StudyInstanceUID"),
        date=date_of(header, "StudyDate"),
        frame=frame,
        references=frozenset(references - {""}),
        born=date_of(header, "PatientBirthDate") or text(header, "PatientBirthDate"),
    )
