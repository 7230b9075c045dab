"""Volume: a NIfTI image in memory, its axes turned to the closest (x right, y anterior, z superior), unresampled."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from common.errors import DataError

LABEL = "label"  # the role whose values are names of structures
MM_PER = {"meter": 1000.0, "micron": 0.001}  # of a header's unit of length; nibabel reads affines as they are
VOXELS_MM = (0.01, 50.0)  # of a file that states another unit than mm: outside it the unit is a slip
ROUNDING = 0.01  # a writer that stretches 0, 1, 2 over an integer's range gives them back within 1/255


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

    A label's values that are whole within rounding (0.9999999) come back whole; others as they are.

    Raises:
        DataError: the file is missing, no plain file, corrupt, truncated, colored, complex, not three-dimensional, or
        has
            no usable affine.
    """
    if not path.is_file():  # a named pipe would block, a folder is none
        raise DataError(
            f"The {role} file is missing, corrupt or truncated (no file); copy it again from its source or remove the "
            "case."
        )
    try:
        image = _decode(path)
        affine = in_mm(image)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise DataError(
                f"The {role} file's affine does not place its voxels in space; export it with its geometry."
            )
        if image.get_data_dtype().fields is not None or image.get_data_dtype().kind == "c":
            kind = "colors" if image.get_data_dtype().fields is not None else "complex numbers"
            raise DataError(f"The {role} file holds {kind}, not one value a voxel; export the image itself.")
        _check_unit(image, affine, role)
        image = nib.as_closest_canonical(image)
        data = np.asanyarray(image.dataobj)
    except DataError:
        raise
    except Exception as error:  # nibabel, gzip and numpy share no base: whatever it is, this file is odd
        raise DataError(
            f"The {role} file is missing, corrupt or truncated ({type(error).__name__}); copy it again from its source "
            "or remove the case."
        ) from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(f"The {role} file has {data.ndim} dimensions instead of 3; export one volume.")
    data = whole(data) if role == LABEL else data
    return Volume(data, in_mm(image))


def in_mm(image: nib.Nifti1Image) -> np.ndarray:
    """(4, 4), from voxel indices to mm: a header may state meters or microns, which nibabel passes by."""
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= MM_PER.get(str(image.header.get_xyzt_units()[0]), 1.0)
    return affine


def _check_unit(image: nib.Nifti1Image, affine: np.ndarray, role: str) -> None:
    unit, spacing = str(image.header.get_xyzt_units()[0]), np.linalg.norm(affine[:3, :3], axis=0)
    if unit in MM_PER and not (VOXELS_MM[0] <= spacing.min() and spacing.max() <= VOXELS_MM[1]):
        raise DataError(
            f"The {role} file says that its lengths are in {unit}s, which makes voxels of {spacing.max():g} mm; "
            "export it with the right unit."
        )


def whole(data: np.ndarray) -> np.ndarray:
    """Float values that are whole within rounding, whole; anything else as it came."""
    if data.dtype.kind != "f" or not np.isfinite(data).all():
        return data
    nearest = np.rint(data)
    return nearest if data.size == 0 or float(np.abs(data - nearest).max()) <= ROUNDING else data


def _decode(path: Path) -> nib.Nifti1Image:
    """The image of a .nii or .nii.gz file, decompressed to its end.

    ``nib.load`` stops at the last voxel, before gzip's checksum, so that a damaged file passes unnoticed.
    """
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    second_version = b"\x1c\x02" in (content[:2], content[3:1:-1])  # the header's length, 540, in either byte order
    kind = nib.Nifti2Image if second_version else nib.Nifti1Image
    written = kind.header_class.from_fileobj(io.BytesIO(content))
    if np.isinf([float(written["scl_slope"]), float(written["scl_inter"])]).any():
        raise ValueError("scl_slope")  # nibabel would pass by it, and give the stored integers
    if float(written["vox_offset"]) < kind.header_class.single_vox_offset:
        raise ValueError("vox_offset")  # nibabel would take a 0 at its word, and the header's own bytes for voxels
    return kind.from_bytes(content)
