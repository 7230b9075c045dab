"""What one case's images say: readable, plausible, on grids that fit each other (`client.data.images.checks`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from client.data.case import HECKTOR, LABEL, Case
from client.data.images.checks import inspect
from client.data.images.nifti import Volume, read_volume
from client.doctor.finding import ERROR, NOTE, WARNING, Finding, from_sentence
from client.doctor.headers import identifying_fields
from client.doctor.plausible import check_values
from common.data.batch import CT, PET
from common.errors import DataError

SPACING_MM = (0.3, 8.0)  # HECKTOR's images lie within 0.49 and 5.5 mm (FACTS A5)
OBLIQUE_DEGREES = 2.0
FORMS_MM = 0.5  # by which the two geometries of a NIfTI header may differ
AIR_HU, PADDING_HU = -500.0, -1100.0
LOW_SUV, HIGH_MEAN_SUV, NEGATIVE_SUV = 1.5, 10.0, -0.1
BODY_HU, UPTAKE_SUV, OUTSIDE_SHARE = -300.0, 1.0, 0.25
SAMPLE_MM = 8.0


@dataclass
class Examined:
    """One case after a look at every file.

    Args:
        reference: the modality whose image carries the grid.
        volumes: decoded, by role; those that could not be read are absent.
        digest: SHA-256 of the reference image's voxels, to find a patient under two codes.
        others: the same of other images and of a label that is not empty, to find a file copied to another patient.
        milliliters: volume by structure; None without a readable label.
    """

    patient: str
    reference: str
    findings: list[Finding] = field(default_factory=list)
    volumes: dict[str, Volume] = field(default_factory=dict)
    digest: str = ""
    others: dict[str, str] = field(default_factory=dict)
    milliliters: dict[str, float] | None = None


def examine(case: Case) -> Examined:
    """Open every file of a case and say all that is wrong, odd or worth knowing."""
    found = Examined(case.patient, case.reference)
    paths = dict(case.images) | ({} if case.label is None else {LABEL: case.label})
    if not case.has_grid:
        what = f"The case has no {case.reference}."
        found.findings.append(Finding(ERROR, "folder", what, "Add it or remove the case."))
    sentences = []
    for role, path in paths.items():
        try:
            found.volumes[role] = read_volume(path, role=role)
        except DataError as error:
            sentences += error.problems
    sentences += inspect(found.volumes, case)
    found.findings += [from_sentence(sentence, "images") for sentence in sentences]
    for role, volume in found.volumes.items():
        found.findings += [*_headers(role, paths[role]), *_geometry(role, volume, paths[role])]
    found.findings += [*_ct(found.volumes), *_pet(found.volumes), *_label(found.volumes, case)]
    found.findings += _registration(found.volumes)
    if not sentences:  # values of a file that is refused say nothing more
        found.findings += check_values(found.volumes)
    _summarise(found, case)
    found.findings = [Finding(f.severity, f.area, f.what, f.remedy, (case.patient,)) for f in found.findings]
    return found


def _summarise(found: Examined, case: Case) -> None:
    if case.reference in found.volumes:
        found.digest = _digest(found.volumes[case.reference].data)
    found.others = {
        role: _digest(volume.data)
        for role, volume in found.volumes.items()
        if role != case.reference and volume.data.any()
    }
    if LABEL in found.volumes:
        label = found.volumes[LABEL]
        structures = HECKTOR if case.structures is None else case.structures
        found.milliliters = {
            name: float(np.isin(label.data, values).sum()) * label.voxel_mm3 / 1000
            for name, values in structures.items()
        }


def _digest(data: np.ndarray) -> str:
    data = np.ascontiguousarray(data)
    return hashlib.sha256(f"{data.dtype}{data.shape}".encode() + data.tobytes()).hexdigest()


def _headers(role: str, path: Path) -> Iterator[Finding]:
    for name, what in identifying_fields(path).items():
        yield Finding(
            ERROR if name == "DICOM extension" else WARNING,
            "privacy",
            f"The {role} file's {name} {what}.",
            "Write the file again without it; `python -m client prepare` and `dcm2niix -ba y` write bare headers.",
        )


def _geometry(role: str, volume: Volume, path: Path) -> Iterator[Finding]:
    spacing = volume.spacing
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        yield Finding(
            WARNING,
            "images",
            f"The {role} has voxels outside {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm.",
            "Check the spacing in the header; export the original reconstruction.",
        )
    degrees = float(np.degrees(nib.affines.obliquity(volume.affine)).max())
    if degrees > OBLIQUE_DEGREES:
        yield Finding(NOTE, "images", f"The {role} is turned against the body's axes; it is resampled upright.")
    header = _header(path)
    if header is None:
        return
    s_form, s_code = header.get_sform(coded=True)
    q_form, q_code = header.get_qform(coded=True)
    if not s_code and not q_code:
        yield Finding(
            WARNING,
            "images",
            f"The {role} file's header does not say how it lies (sform and qform are unset).",
            "Export it with its geometry: left and right could be exchanged.",
        )
    elif s_code and q_code and np.abs(s_form - q_form).max() > FORMS_MM:
        yield Finding(
            WARNING,
            "images",
            f"The {role} file's header gives two different geometries (sform and qform); the sform is used.",
            "Export it again, or copy the right one over the other.",
        )


def _header(path: Path) -> nib.Nifti1Header | None:
    try:
        header = nib.load(path).header
    except Exception:  # an odd header is told by `read_volume`; here it only means nothing can be compared
        return None
    return header if isinstance(header, nib.Nifti1Header) else None


def _ct(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    if CT not in volumes or volumes[CT].data.size == 0:
        return
    low = float(volumes[CT].data.min())
    if low > AIR_HU:
        yield Finding(
            WARNING,
            "images",
            "The CT holds no air: its lowest value is far above -1000 HU.",
            "Check that rescale slope and intercept were applied and that the scan is not cropped to the body.",
        )
    elif low < PADDING_HU:
        yield Finding(NOTE, "images", "The CT is padded below -1100 HU; values are clipped before anything else.")


def _pet(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    if PET not in volumes or volumes[PET].data.size == 0:
        return
    data = volumes[PET].data
    low, high, mean = float(data.min()), float(data.max()), float(data.mean())
    advice = "Convert it from Bq/mL with dose, time and body weight: `python -m client prepare` does."
    if 0 < high < LOW_SUV:
        yield Finding(WARNING, "images", f"The PET's highest value is below {LOW_SUV:g}: scaled, not SUV.", advice)
    if HIGH_MEAN_SUV < mean <= 100:  # above, `inspect` calls it Bq/mL
        yield Finding(WARNING, "images", f"The PET's mean is above {HIGH_MEAN_SUV:g}: hardly SUV.", advice)
    if low < NEGATIVE_SUV:
        yield Finding(WARNING, "images", "The PET holds negative values.", "Export the reconstruction that has none.")


def _label(volumes: Mapping[str, Volume], case: Case) -> Iterator[Finding]:
    if LABEL not in volumes:
        return
    label, first = volumes[LABEL], volumes.get(case.reference)
    nothing = "neither GTVp nor GTVn" if case.structures is None else f"none of {', '.join(case.structures)}"
    if not label.data.any():
        yield Finding(
            WARNING,
            "labels",
            f"The label is empty: {nothing}.",
            "Check that the right regions were exported.",
        )
    if first is not None and (label.data.shape != first.data.shape or np.abs(label.affine - first.affine).max() > 1e-2):
        yield Finding(
            WARNING,
            "labels",
            f"Label and {case.reference} are on different grids; the label is resampled by nearest neighbor.",
            "Nothing, if both lie right in space (HECKTOR has such cases); else export both on one grid.",
        )


def _registration(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    if not {CT, PET} <= set(volumes):
        return
    share = uptake_outside(volumes[CT], volumes[PET])
    if share is not None and share > OUTSIDE_SHARE:
        yield Finding(
            WARNING,
            "registration",
            "Much of the PET's uptake lies outside the body that the CT shows.",
            "Look at the fused thumbnail (--html): CT and PET may be of different moments or have lost their geometry.",
        )


def uptake_outside(ct: Volume, pet: Volume) -> float | None:
    """Share of PET voxels above SUV 1, within the CT's box, whose place in the CT is air; None where there are too few.

    Sampled about every 8 mm. An aligned scan has a few percent (sinuses, lung); a shift of centimeters many.
    """
    strides = np.maximum(1, np.rint(SAMPLE_MM / pet.spacing).astype(int))
    coarse = pet.data[tuple(slice(None, None, step) for step in strides)]
    hot = np.argwhere(coarse > UPTAKE_SUV) * strides
    places = nib.affines.apply_affine(np.linalg.inv(ct.affine) @ pet.affine, hot)
    nearest = np.rint(places).astype(int)
    nearest = nearest[((nearest >= 0) & (nearest < ct.data.shape)).all(axis=1)]
    if len(nearest) < 20:
        return None
    return float((ct.data[tuple(nearest.T)] < BODY_HU).mean())
