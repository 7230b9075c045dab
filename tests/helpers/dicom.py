"""DICOM for tests: `simulations.phantom.dicom` with a PET header whose changes are keywords, and rectangles."""

from __future__ import annotations

import numpy as np

from simulations.phantom.dicom import BIRTHDAY, HOSPITAL_NUMBER, Scan, Visit, write_scan, write_structures
from simulations.phantom.dicom import pet_header as header_with

__all__ = ["BIRTHDAY", "HOSPITAL_NUMBER", "Scan", "Visit", "box", "pet_header", "write_scan", "write_structures"]


def pet_header(**changes: object) -> dict[str, object]:
    """`simulations.phantom.dicom.pet_header`."""
    return header_with(changes)


def box(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    """A rectangle's contour in LPS mm."""
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])
