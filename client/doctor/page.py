"""doctor's page: findings and thumbnails in one HTML file that needs no other. It shows patients and stays on site."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import nibabel as nib
import numpy as np
from scipy import ndimage

from client.data.case import LABEL
from client.data.images.nifti import Volume
from client.doctor.finding import SEVERITIES, Finding
from common.data.batch import CT, PET
from common.files import write_bytes

TEMPLATE = Path(__file__).with_name("page.html")
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")  # Okabe-Ito, by label value
SIDE, STEP_MM = 128, 2.0  # a thumbnail: pixels, and millimeters per pixel
SOFT_TISSUE_HU = (-200.0, 300.0)
SHOWN_SUV = (0.0, 10.0)


def write_page(
    path: Path,
    findings: Sequence[Finding],
    pictures: Mapping[str, bytes],
    *,
    center: str,
    facts: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        pictures: PNG by patient, in the order shown.
        facts: lines of the head: what was looked at, and when.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    severities = {name: [f for f in findings if f.severity == name] for name in SEVERITIES}
    worst = {patient: _worst(findings, patient) for patient in pictures}
    page = environment.from_string(TEMPLATE.read_text()).render(
        center=center,
        facts=facts,
        severities=severities,
        worst=worst,
        pictures={patient: base64.b64encode(png).decode() for patient, png in pictures.items()},
    )
    write_bytes(path, page.encode())


def _worst(findings: Sequence[Finding], patient: str) -> str:
    about = [f.severity for f in findings if patient in f.cases]
    return min(about, key=SEVERITIES.index) if about else "fine"


def thumbnail(volumes: Mapping[str, Volume], reference: str = CT) -> bytes:
    """A PNG of three square views, 128 pixels of 2 mm each: axial CT (or another reference image), axial and coronal
    with PET and the label.

    The views run through the label's middle, else through the image's; it and PET are both drawn in space, so that a
    shift shows.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first = volumes[reference]
    low, high = SOFT_TISSUE_HU if reference == CT else np.percentile(first.data, (1, 99))
    beyond = -1000.0 if reference == CT else float(first.data.min())
    center = _center(volumes, first)
    figure, axes = plt.subplots(1, 3, figsize=(4.8, 1.6))
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0)
    for plane, axis, fused in zip(axes, (2, 2, 1), (False, True, True), strict=True):
        gray = _slice(first, center, axis, order=1, outside=beyond)
        plane.imshow(gray, cmap="gray", vmin=low, vmax=high, origin="lower")
        if fused and PET in volumes:
            suv = _slice(volumes[PET], center, axis, order=1, outside=0.0)
            plane.imshow(suv, cmap="hot", vmin=SHOWN_SUV[0], vmax=SHOWN_SUV[1], origin="lower",
                         alpha=np.clip(suv / SHOWN_SUV[1] * 2, 0, 0.7))  # fmt: skip
        if LABEL in volumes:
            label = np.rint(_slice(volumes[LABEL], center, axis, order=0, outside=0.0))
            for value, color in enumerate(COLORS, start=1):
                if (label == value).any():
                    plane.contour((label == value).astype(float), levels=[0.5], colors=color, linewidths=1.0)
        plane.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="black", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _center(volumes: Mapping[str, Volume], first: Volume) -> np.ndarray:
    """A point in mm (RAS)."""
    label = volumes.get(LABEL)
    if label is not None and label.data.any():
        return nib.affines.apply_affine(label.affine, np.argwhere(label.data).mean(axis=0))
    low, high = first.box_mm()
    return (low + high) / 2


def _slice(volume: Volume, center: np.ndarray, axis: int, *, order: int, outside: float) -> np.ndarray:
    """(SIDE, SIDE) values on a plane through ``center`` across the world's ``axis``, rows upwards."""
    steps = (np.arange(SIDE) - (SIDE - 1) / 2) * STEP_MM
    across, up = (0, 2) if axis == 1 else (0, 1)
    points = np.tile(center[:, None, None], (1, SIDE, SIDE))
    points[across] += steps[None, :]
    points[up] += steps[:, None]
    voxels = nib.affines.apply_affine(np.linalg.inv(volume.affine), points.reshape(3, -1).T).T
    values = ndimage.map_coordinates(
        volume.data, voxels, output=np.float32, order=order, mode="constant", cval=outside, prefilter=False
    )
    return values.reshape(SIDE, SIDE)
