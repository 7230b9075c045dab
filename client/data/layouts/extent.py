"""How large a folder's images are, from their headers alone: what a view's spacing is chosen by."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np

from client.data.case import Case
from client.data.images.nifti import in_mm
from common.errors import DataError

LOOKED_AT = 24  # cases, evenly spread


def median_extent(cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray]:
    """Median extent and voxel spacing of the reference images, each (depth, height, width) in mm.

    Raises:
        DataError: none of the images looked at has a readable header.
    """
    imaged = [case for case in cases if case.has_grid]
    extents, spacings = [], []
    for case in imaged[:: max(1, len(imaged) // LOOKED_AT)]:
        try:
            header = nib.as_closest_canonical(nib.load(case.images[case.reference]))
        except Exception:  # nibabel, gzip and numpy share no base
            continue  # counted and named where the case is prepared
        spacing = np.array(nib.affines.voxel_sizes(in_mm(header))[::-1])
        spacings.append(spacing)
        extents.append(spacing * np.array(header.shape[:3][::-1]))
    if not extents:
        raise DataError(f"None of {len(imaged)} images has a readable header; check that they are NIfTI files.")
    return np.median(extents, axis=0), np.median(spacings, axis=0)
