"""From an RTSTRUCT to a label map on the grid of the scan that it was drawn on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy import ndimage

from client.dicom.contours import HALF, differences, fill
from client.dicom.names import LABELS, NAMES, match_names
from client.dicom.values import ODD, items, number, text
from client.dicom.volume import DicomVolume
from common.errors import DataError


@dataclass
class Drawn:
    """A label map uint8 (columns, rows, slices), which regions became which label, and what was left out.

    Args:
        failed: structures of which a region has contours but no voxel: the label map lacks it, so it is none.
    """

    label: np.ndarray
    used: dict[str, list[str]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def draw(
    paths: Sequence[Path], scan: DicomVolume, *, names: Mapping[str, Sequence[str]] = NAMES, edges: str = HALF
) -> Drawn:
    """The label map of an RTSTRUCT. A voxel of both structures is the primary's.

    Args:
        paths: the series' files; an export may hold the same one twice.
        names: structure -> patterns of region names, ``*`` for anything (`client.dicom.names`).
        edges: what voxels count whose center lies on a contour (`client.dicom.contours.fill`).

    Raises:
        DataError: the file is unreadable, a name fits both structures, a number names two regions, or contours do not
            lie on the scan.
    """
    drawing = _the_one(paths)
    matched = match_names(_region_names(drawing), names)
    drawn = Drawn(np.zeros(scan.data.shape, np.uint8), unused=matched.unused)
    drawn.notes += [
        f"'{region}' was left out: '{word}' makes it another thing" for region, word in matched.swallowed.items()
    ]
    contours = _contours(drawing)
    for structure in sorted(matched.chosen, key=lambda name: -LABELS[name]):  # the primary last: it wins where both are
        for number_of, region in matched.chosen[structure].items():
            _draw_one(drawn, structure, region, contours.get(number_of, []), scan, edges)
    drawn.used = {structure: sorted(regions) for structure, regions in drawn.used.items()}
    return drawn


def _draw_one(
    drawn: Drawn, structure: str, region: str, contours: Sequence[Dataset], scan: DicomVolume, edges: str
) -> None:
    if not contours:
        drawn.notes.append(f"a region of {structure} is empty: it has no contour")
        return
    filled = fill(contours, scan, edges=edges)
    drawn.label[filled.mask] = LABELS[structure]
    drawn.used.setdefault(structure, []).append(region)
    drawn.notes += [f"{structure}: {note}" for note in (*filled.notes, *differences(filled, scan))]
    if not filled.mask.any():
        drawn.failed.append(structure)


def on_grid(label: np.ndarray, drawn_on: DicomVolume, scan: DicomVolume) -> np.ndarray:
    """A label map on another scan of the same frame of reference, by nearest neighbor; 0 beyond the first."""
    native = np.round(np.linalg.inv(drawn_on.affine) @ scan.affine, 6)
    return ndimage.affine_transform(
        label, native[:3, :3], offset=native[:3, 3], output_shape=scan.data.shape, order=0, mode="grid-constant", cval=0
    )


def _the_one(paths: Sequence[Path]) -> Dataset:
    """The drawing of a series. Raises DataError where it has several that are not copies of each other."""
    try:
        read = [dcmread(path) for path in paths]
        different = {_content(one) for one in read}
    except ODD as error:
        raise DataError(f"The RTSTRUCT cannot be read ({type(error).__name__}); export it again.") from error
    if len(different) > 1:
        raise DataError(f"There are {len(different)} different RTSTRUCT in one series; export the one that counts.")
    return read[0]


def _content(one: Dataset) -> str:
    return str((text(one, "SOPInstanceUID"), one.get("StructureSetROISequence"), one.get("ROIContourSequence")))


def _region_names(drawing: Dataset) -> dict[int, str]:
    found: dict[int, str] = {}
    for item in items(drawing, "StructureSetROISequence"):
        key = number(item, "ROINumber")
        if key is None:
            continue  # no contour can name it
        if int(key) in found:
            raise DataError("Two regions of the RTSTRUCT have one number, so their contours cannot be told apart.")
        found[int(key)] = text(item, "ROIName")
    return found


def _contours(drawing: Dataset) -> dict[int, list[Dataset]]:
    """Contours by region number; a region that stands twice in the list has those of both entries."""
    found: dict[int, list[Dataset]] = {}
    for item in items(drawing, "ROIContourSequence"):
        key = number(item, "ReferencedROINumber")
        if key is not None:
            found.setdefault(int(key), []).extend(items(item, "ContourSequence"))
    return found
