"""A mask as a DICOM Segmentation object (SEG) by highdicom, in the CT's frame of reference.

BINARY and not LABELMAP: the latter is another SOP class that most readers refuse. A structure that was not found gets
no segment, and a mask of nothing no object, for highdicom would then write every slice of an empty mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes as dicom_codes

from client.dicom.results.codes import Coded
from client.dicom.results.origin import MANUFACTURER, RESEARCH, Author, Origin

SERIES_NUMBER = 9001


def segmentation(
    masks: Mapping[str, np.ndarray], origin: Origin, codes: Mapping[str, Coded], author: Author
) -> Dataset:
    """The SEG of structures, which may overlap.

    Args:
        masks: structure -> bool (columns, rows, slices) on the CT's own voxels; at least one voxel in each.
    """
    for name, mask in masks.items():
        assert mask.shape == origin.shape and mask.any(), f"'{name}' is empty or does not lie on the CT"
    # Slices first, then rows and columns, as frames are stored; structures last.
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1).astype(np.uint8)
    segments = [_segment(place, name, codes[name], author) for place, name in enumerate(masks, start=1)]
    one = hd.seg.Segmentation(
        source_images=origin.images,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=author.name,
        software_versions=author.software,
        device_serial_number=author.key[:16],
        content_label="PREDICTION",
        content_description=RESEARCH,
        series_description=f"{author.name}: research use"[:64],
        omit_empty_frames=True,
    )
    return _named_in_each_frame(one)


def _named_in_each_frame(one: Dataset) -> Dataset:
    """A frame's segment stands in the frame: of a single segment highdicom says it once, where many do not look."""
    [shared] = one.SharedFunctionalGroupsSequence
    if "SegmentIdentificationSequence" in shared:
        named = shared.SegmentIdentificationSequence
        del shared.SegmentIdentificationSequence
        for frame in one.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence = DicomSequence([Dataset(item) for item in named])
    return one


def _segment(place: int, name: str, code: Coded, author: Author) -> hd.seg.SegmentDescription:
    described = hd.seg.SegmentDescription(
        segment_number=place,
        segment_label=name[:64],
        segmented_property_category=code.category,
        segmented_property_type=code.type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=author.name,
            family=dicom_codes.DCM.ArtificialIntelligence,
            version=author.software,
            source=MANUFACTURER,
            parameters=author.parameters,
        ),
        tracking_id=f"{author.name} {name}"[:64],
        tracking_uid=hd.UID(),
        anatomic_regions=None if code.region is None else [code.region],
    )
    described.SegmentDescription = f"{RESEARCH}; {author.tested}"[:1024]
    return described
