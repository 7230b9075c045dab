"""Volume: a NIfTI image in memory, its axes turned to the closest (x right, y anterior, z superior), unresampled."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from common.errors import DataError

BROKEN = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    np.linalg.LinAlgError,
)


@dataclass(frozen=True)
class Volume:
    """Voxels (x, y, z) in the file's own type, and the affine from voxel indices to millimeters (RAS)."""

    data: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Millimeters per voxel along its own axes."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_mm3(self) -> float:
        return round(float(abs(np.linalg.det(self.affine[:3, :3]))), 6)

    def box_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner of the box, along the world's axes, that holds every voxel to its outer edge."""
        edges = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in self.data.shape])).reshape(3, -1).T
        corners = nib.affines.apply_affine(self.affine, edges)
        return corners.min(axis=0), corners.max(axis=0)


def read_volume(path: Path, *, role: str) -> Volume:
    """Decode one file; ``role`` ('CT', 'PET', 'label') is how the sentence names it, so that no ID is in it.

    Raises:
        DataError: the file is missing, corrupt, truncated, not three-dimensional, or has no usable affine.
    """
    try:
        image = nib.as_closest_canonical(_decode(path))
        data = np.asanyarray(image.dataobj)
    except BROKEN as error:
        raise DataError(
            f"The {role} file is missing, corrupt or truncated ({type(error).__name__}); copy it again from its source "
            "or remove the case."
        ) from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(f"The {role} file has {data.ndim} dimensions instead of 3; export one volume.")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"The {role} file's affine does not place its voxels in space; export it with its geometry.")
    return Volume(data, affine)


def _decode(path: Path) -> nib.Nifti1Image:
    """The image of a .nii or .nii.gz file, decompressed to its end.

    ``nib.load`` stops at the last voxel, before gzip's checksum, so that a damaged file passes unnoticed.
    """
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    second_version = b"\x1c\x02" in (content[:2], content[3:1:-1])  # the header's length, 540, in either byte order
    return (nib.Nifti2Image if second_version else nib.Nifti1Image).from_bytes(content)
