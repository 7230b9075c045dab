"""What each quantity is of one patient, read from the record and from the images as they lie in their files."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from client.data.case import LABEL as LABEL_ROLE
from client.data.case import Case, label_values
from client.data.images.nifti import Volume, read_volume
from common.data.batch import CT, PET
from common.data.quantities import QUANTITIES, RECORD
from common.data.records import FLAG, SCHEMA
from common.errors import DataError

Values = dict[str, float | str]
BODY_HU, HIGH = -200.0, 99.9

log = logging.getLogger("fedgraft.center")


def measured(cases: Sequence[Case]) -> tuple[list[Values], int]:
    """By patient, quantity -> value; one that cannot be read is absent, and how many patients had one such is told."""
    found, unreadable = [], 0
    for case in cases:
        values = _recorded(case)
        try:
            values |= _of_images(case)
        except DataError as error:
            log.warning("case=%s %s", case.patient, error)
            unreadable += 1
        found.append(values)
    return found, unreadable


def counted(values: Sequence[Values]) -> dict[str, np.ndarray]:
    """Quantity -> numbers of patients by bin, float64; only of quantities that somebody has."""
    found = {}
    for name, quantity in QUANTITIES.items():
        own = [one[name] for one in values if name in one]
        if not own:
            continue
        if quantity.is_number:
            places = np.searchsorted(quantity.edges, np.array(own, np.float64), side="right")
        else:
            places = np.array([quantity.levels.index(str(value)) for value in own])
        found[name] = np.bincount(places, minlength=len(quantity.bins)).astype(np.float64)
    return found


def _recorded(case: Case) -> Values:
    found: Values = {}
    for name, value in case.record.items():
        quantity = QUANTITIES.get(name)
        if quantity is not None and quantity.source == RECORD:
            found[name] = quantity.levels[int(float(value))] if SCHEMA[name].kind == FLAG else value
    if case.event is not None and case.days is not None:
        found |= {"event": ("censored", "event")[case.event], "follow_up_days": case.days}
    return found


def _of_images(case: Case) -> Values:
    found: Values = {}
    if CT in case.images:
        ct = read_volume(case.images[CT], role=CT)
        body = ct.data[ct.data > BODY_HU]
        found |= _spacing(CT, ct) | ({"CT_body_HU": float(np.median(body))} if body.size else {})
    if PET in case.images:
        pet = read_volume(case.images[PET], role=PET)
        found |= _spacing(PET, pet) | {"PET_high_SUV": float(np.percentile(pet.data, HIGH))}
    return found | _volumes(case)


def _spacing(modality: str, volume: Volume) -> Values:
    x, y, z = volume.spacing
    in_plane, between = round(float(np.sqrt(x * y)), 3), round(float(z), 3)  # a header's 0.7500001 is 0.75
    return {f"{modality}_spacing_mm": in_plane, f"{modality}_slice_mm": between}


def _volumes(case: Case) -> Values:
    """Milliliters of the structures that were drawn; a structure that is not there has none, which is no volume."""
    if case.label is None or case.structures is not None:  # names of other layouts are no quantities
        return {}
    label = read_volume(case.label, role=LABEL_ROLE)
    found: Values = {}
    for name, values in zip(("GTVp", "GTVn"), label_values(case, ("GTVp", "GTVn")), strict=True):
        voxels = int(np.isin(label.data, values).sum())
        if voxels:
            found[f"{name}_ml"] = voxels * label.voxel_mm3 / 1000
    return found
