"""Series: the DICOM files of a folder by patient, and which CT, PET and RTSTRUCT belong together.

Only headers are read here. A patient's examinations are told apart by study and frame of reference: CT and PET of one
examination share the latter, and an RTSTRUCT names the CT series that it was drawn on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from common.errors import DataError

CT, PT, RTSTRUCT = "CT", "PT", "RTSTRUCT"
ONLY, EARLIEST, LATEST = "only", "earliest", "latest"


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
    is_localizer: bool = False


@dataclass(frozen=True)
class Examination:
    """What becomes one case."""

    ct: Series
    pet: Series | None
    structures: Series | None
    left_out: int = 0  # RTSTRUCT series of this patient that were drawn on another CT

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
    series: dict[str, Series] = {}
    for path, header in _headers(folder, found):
        modality = str(header.get("Modality", ""))
        if modality not in (CT, PT, RTSTRUCT):
            found.other_modalities[modality] = found.other_modalities.get(modality, 0) + 1
            continue
        uid = str(header.get("SeriesInstanceUID", path.parent))
        if uid not in series:
            series[uid] = _series(header, modality, uid)
            found.patients.setdefault(series[uid].patient, []).append(series[uid])
        series[uid].files.append(path)
        series[uid].is_localizer |= "LOCALIZER" in [str(word).upper() for word in header.get("ImageType", [])]
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
    images = [one for one in series if not one.is_localizer]
    scans = [one for one in images if one.modality == CT]
    if not scans:
        raise DataError("There is no CT series; export the CT of the examination too.")
    pets = [one for one in images if one.modality == PT]
    drawings = [one for one in series if one.modality == RTSTRUCT]
    examinations = _examinations(scans, pets, drawings)
    if len(examinations) > 1 and which == ONLY:
        raise DataError(
            f"There are {len(examinations)} examinations; choose with --examination earliest or latest, or export one."
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
        ct = _one_ct(here, drawn)
        own = [one for one in drawn if not one.references or ct.uid in one.references]
        if len(own) > 1:
            raise DataError(f"There are {len(own)} RTSTRUCT series for one CT; export the one that counts.")
        found.append(Examination(ct, _one_pet(pets, study, frame), own[0] if own else None, len(drawings) - len(own)))
    return found


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
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            yield path, dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError):
            found.other_files += 1


def _series(header: Dataset, modality: str, uid: str) -> Series:
    frame = str(header.get("FrameOfReferenceUID", ""))
    references: set[str] = set()
    for item in header.get("ReferencedFrameOfReferenceSequence", []):
        frame = frame or str(item.get("FrameOfReferenceUID", ""))
        for study in item.get("RTReferencedStudySequence", []):
            references |= {str(s.SeriesInstanceUID) for s in study.get("RTReferencedSeriesSequence", [])}
    return Series(
        patient=str(header.get("PatientID", "")),
        modality=modality,
        uid=uid,
        study=str(header.get("StudyInstanceUID", "")),
        date=str(header.get("StudyDate", "")),
        frame=frame,
        references=frozenset(references),
    )
