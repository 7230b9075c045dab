"""MetaImage (``.mha``): one volume in one file, as grand-challenge's containers get and give images.

Axes are (x, y, z) as in NIfTI; a MetaImage's world is LPS, ours RAS. Only what such a container sees is read: three
dimensions, one value a voxel, data in the same file. https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from common.errors import DataError
from common.files import write_bytes

DATA = "ElementDataFile"
TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
LPS = np.diag([-1.0, -1.0, 1.0])
LONGEST_HEADER = 1 << 16
MOST_BYTES = 8 << 30


def read_mha(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A volume (x, y, z) in its own type and its affine to mm in RAS. Raises DataError, which names the file's kind."""
    try:
        content = path.read_bytes()
        header, start = _header(content)
        shape = [int(n) for n in header["DimSize"].split()]
        if len(shape) != 3 or header.get("ElementNumberOfChannels", "1") != "1" or min(shape) < 1:
            raise ValueError(f"it is no volume of one value a voxel: {header['DimSize']}")
        kind = np.dtype(TYPES[header["ElementType"]])
        if _says(header, "BinaryDataByteOrderMSB") or _says(header, "ElementByteOrderMSB"):
            kind = kind.newbyteorder(">")
        size = int(np.prod(shape, dtype=object)) * kind.itemsize
        if size > MOST_BYTES:
            raise ValueError(f"it says that it holds {size} bytes")
        data = content[start:]
        if _says(header, "CompressedData"):
            data = zlib.decompressobj().decompress(data, size)
        if len(data) < size:
            raise ValueError(f"it holds {len(data)} of {size} bytes")
        values = np.frombuffer(data[:size], kind).reshape(shape[::-1]).transpose(2, 1, 0)
        return values.astype(kind.newbyteorder("=")), _affine(header)
    except (OSError, KeyError, ValueError, zlib.error) as error:
        raise DataError(
            f"A MetaImage cannot be read ({type(error).__name__}: {error}); it must be a three-dimensional .mha with "
            "its data in the same file."
        ) from error


def write_mha(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """A mask uint8 (x, y, z), compressed; the same voxels give the same bytes."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = (LPS @ affine[:3, :3]) / spacing  # columns: where each of the volume's axes points to
    data = zlib.compress(np.ascontiguousarray(values.transpose(2, 1, 0), np.uint8).tobytes(), 6)
    lines = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True", "CompressedDataSize": str(len(data)), "TransformMatrix": _numbers(axes.T.ravel()),
        "Offset": _numbers(LPS @ affine[:3, 3]), "CenterOfRotation": "0 0 0", "ElementSpacing": _numbers(spacing),
        "DimSize": " ".join(map(str, values.shape)), "ElementType": "MET_UCHAR", DATA: "LOCAL",
    }  # fmt: skip
    write_bytes(path, "".join(f"{name} = {value}\n" for name, value in lines.items()).encode() + data)


def _header(content: bytes) -> tuple[dict[str, str], int]:
    """Its lines, and where the data begin: after the line that says where they are."""
    found: dict[str, str] = {}
    start = 0
    while DATA not in found:
        end = content.find(b"\n", start, LONGEST_HEADER)
        if end < 0:
            raise ValueError(f"its header has no {DATA}")
        name, _, value = content[start:end].decode("ascii").partition("=")
        found[name.strip()] = value.strip()
        start = end + 1
    if found[DATA] != "LOCAL":
        raise ValueError(f"{DATA} is not LOCAL")
    return found, start


def _affine(header: dict[str, str]) -> np.ndarray:
    axes = np.array(header.get("TransformMatrix", "1 0 0 0 1 0 0 0 1").split(), float).reshape(3, 3).T
    affine = np.eye(4)
    affine[:3, :3] = LPS @ axes * np.array(header["ElementSpacing"].split(), float)
    affine[:3, 3] = LPS @ np.array(header.get("Offset", header.get("Position", "0 0 0")).split(), float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise ValueError("its voxels have no volume")
    return affine


def _says(header: dict[str, str], name: str) -> bool:
    return header.get(name, "False").lower() == "true"


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(round(float(value), 12) + 0.0) for value in values)
