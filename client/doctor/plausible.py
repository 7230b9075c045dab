"""Values that a file may hold and a body does not: HU that are none, uptake that is no SUV, labels that are no tumor.

All of it are questions (warnings): a person looks, nothing is changed or left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import nibabel as nib
import numpy as np

from client.data.images.nifti import LABEL, Volume
from client.doctor.finding import WARNING, Finding
from common.data.batch import CT, PET

BODY_HU, SOFT_HU = -300.0, (-200.0, 300.0)
LEAST_BODY, LEAST_SOFT = 0.02, 0.6  # of the scan that is body; of the body that is soft tissue
AIR_OUTSIDE_HU = 300.0  # corners of a scan are air; bright ones mean that the sign was turned
HIGH_BODY_SUV = 4.0  # a body's mean; one by definition where all of the dose stays in it
TINY_VOXELS = 3  # a label of fewer voxels is a click, no structure
HUGE_SHARE = 0.25  # of the scan; a head-and-neck tumor has a hundredth
HOTTER = 1.2  # what the label's uptake must be above the body's, and a mirrored one's above the label's
FEW_VOXELS = 30
MIRRORED = {0: "left and right exchanged", 1: "front and back exchanged", 2: "upside down"}


def check_values(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    """Everything that one case's decoded volumes say about each other."""
    if CT in volumes and volumes[CT].data.size:
        yield from _hounsfield(volumes[CT].data)
    if PET in volumes and volumes[PET].data.size:
        yield from _uptake(volumes)
    if LABEL in volumes and volumes[LABEL].data.size:
        yield from _extent(volumes)
    if {PET, LABEL} <= set(volumes):
        yield from _inside_against_outside(volumes)


def _hounsfield(data: np.ndarray) -> Iterator[Finding]:
    corners = data[:: max(1, data.shape[0] - 1), :: max(1, data.shape[1] - 1), :: max(1, data.shape[2] - 1)]
    body = data[data > BODY_HU]
    soft = (body > SOFT_HU[0]) & (body < SOFT_HU[1])
    if float(np.median(corners)) > AIR_OUTSIDE_HU:
        what, remedy = "The CT is bright where there is air: its values look negated.", "Export it again."
    elif body.size < LEAST_BODY * data.size:
        what, remedy = (
            "The CT holds hardly any tissue: its values are far below HU.",
            "Apply the rescale intercept once.",
        )
    elif soft.mean() < LEAST_SOFT:
        what, remedy = (
            "Little of the CT's body is soft tissue: its values look scaled, not HU.",
            "Apply the rescale slope.",
        )
    else:
        return
    yield Finding(WARNING, "images", what, remedy)


def _uptake(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    data = volumes[PET].data
    if float(data.max()) > 1.0 and (data.dtype.kind in "iu" or bool((data == np.rint(data)).all())):
        yield Finding(
            WARNING,
            "images",
            "The PET holds whole numbers only: SUV was rounded, or it is not SUV.",
            "Export it with its decimals (float, or integers with a slope).",
        )
    within = _of_body(volumes)
    if within is not None and HIGH_BODY_SUV < float(within.mean()) <= 100:
        yield Finding(
            WARNING,
            "images",
            f"The PET's mean over the body is above {HIGH_BODY_SUV:g}: scaled, or hardly SUV.",
            "Check weight and dose; `python -m client prepare` makes SUV from the series.",
        )


def _extent(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    label = volumes[LABEL].data
    drawn = int((label > 0).sum())
    if 0 < drawn <= TINY_VOXELS:
        yield Finding(WARNING, "labels", f"The label has {TINY_VOXELS} voxels or fewer.", "Check what was exported.")
    if drawn > HUGE_SHARE * label.size:
        yield Finding(
            WARNING,
            "labels",
            f"The label covers more than {HUGE_SHARE:.0%} of the scan.",
            "Check that it is the tumor and not the body or a treatment volume.",
        )


def _inside_against_outside(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    """A tumor takes up more than the body around it; where it does not, a mirrored label may."""
    label, everything = volumes[LABEL], _of_body(volumes)
    inside = _at(volumes[PET], label, np.argwhere(label.data > 0))
    if everything is None or len(inside) < FEW_VOXELS or float(inside.mean()) > HOTTER * float(everything.mean()):
        return
    best = ""
    for axis, how in MIRRORED.items():
        mirrored = np.argwhere(np.flip(label.data, axis=axis) > 0)
        there = _at(volumes[PET], label, mirrored)
        if len(there) >= FEW_VOXELS and float(there.mean()) > 2 * HOTTER * max(float(inside.mean()), 1e-6):
            best = f" With {how} it would."
            break
    yield Finding(
        WARNING,
        "labels",
        f"The label does not hold more uptake than the body around it.{best}",
        "Look at the thumbnail (--html): label and PET may lie differently, or be of two patients.",
    )


def _of_body(volumes: Mapping[str, Volume]) -> np.ndarray | None:
    """The PET's values where the CT shows a body, on a sample of CT voxels; None where there are too few."""
    if CT not in volumes or not volumes[CT].data.size:
        return None
    ct = volumes[CT]
    strides = tuple(slice(None, None, max(1, round(4.0 / float(mm)))) for mm in ct.spacing)
    steps = np.array([s.step for s in strides])
    found = _at(volumes[PET], ct, np.argwhere(ct.data[strides] > BODY_HU) * steps)
    return found if len(found) >= FEW_VOXELS else None


def _at(pet: Volume, of: Volume, voxels: np.ndarray) -> np.ndarray:
    """The PET's values at voxels of another volume, nearest neighbor; those outside are left out."""
    if not len(voxels):
        return np.zeros(0)
    places = nib.affines.apply_affine(np.linalg.inv(pet.affine) @ of.affine, voxels)
    nearest = np.rint(places).astype(int)
    nearest = nearest[((nearest >= 0) & (nearest < pet.data.shape)).all(axis=1)]
    return np.asarray(pet.data[tuple(nearest.T)], dtype=np.float64)
