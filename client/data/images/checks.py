"""What makes a case unusable, one sentence each; and the rule that one unreadable case does not stop a center."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np

from client.data.case import LABEL, Case, named_values
from client.data.images.nifti import Volume, read_volume
from common.data.batch import PET
from common.errors import DataError

Ready = TypeVar("Ready")

SMALLEST_MM = 24.0  # one patch of the mini backbone: 8 voxels of 3 mm
LEAST_OVERLAP = 0.05  # of the smaller box; two scans of one patient share far more
BECQUEREL_MEAN = 100.0  # the mean SUV of a scan is below 2, the mean of Bq/mL in the hundreds or thousands


def check_case(case: Case, *, need_pet: bool, need_label: bool) -> list[str]:
    """Open the case's files and say everything that is wrong with them; an empty list means usable."""
    needed = [case.reference] + [PET] * need_pet
    paths = {role: case.images[role] for role in needed if role in case.images}
    if need_label and case.label is not None:
        paths[LABEL] = case.label
    wanted = needed + [LABEL] * need_label
    problems = [f"The case has no {role} file; add it or remove the case." for role in wanted if role not in paths]
    volumes: dict[str, Volume] = {}
    for role, path in paths.items():
        try:
            volumes[role] = read_volume(path, role=role)
        except DataError as error:
            problems += error.problems
    return problems + inspect(volumes, case)


def inspect(volumes: Mapping[str, Volume], case: Case) -> list[str]:
    """What is wrong with a case's decoded volumes, by role; used by `check_case`, `prepare` and doctor."""
    problems = [sentence for role, volume in volumes.items() for sentence in _one(role, volume, case)]
    first = volumes.get(case.reference)
    for role in (role for role in volumes if role != case.reference and first is not None):
        if first is not None and _overlap(first, volumes[role]) < LEAST_OVERLAP:
            problems.append(
                f"{case.reference} and {role} do not overlap in space; check that both belong to one examination and "
                "kept their geometry."
            )
    return problems


def _one(role: str, volume: Volume, case: Case) -> list[str]:
    data, extent = volume.data, np.array(volume.data.shape) * volume.spacing
    if data.size == 0 or (extent < SMALLEST_MM).any():
        size = " x ".join(f"{mm:.0f}" for mm in extent)
        return [f"The {role} volume ({size} mm) is smaller than one patch ({SMALLEST_MM:.0f} mm); export all slices."]
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        return [f"The {role} volume holds NaN or infinite values; export it again."]
    low, high = data.min(), data.max()
    if role == LABEL:
        return _label(data, case)
    if low == high:
        return [f"The {role} volume is empty: every voxel is {float(low):g}; export it again."]
    if role == PET and float(data.mean()) > BECQUEREL_MEAN:
        return ["The PET volume is not in SUV (it looks like Bq/mL); convert it with dose and body weight."]
    return []


def _label(data: np.ndarray, case: Case) -> list[str]:
    allowed = named_values(case)
    whole = data.dtype.kind in "iu" or not (data != np.rint(data)).any()
    if whole and data.min() >= 0 and data.max() <= max(allowed) and len(allowed) == max(allowed) + 1:
        return []  # no value in between is without a name, and looking for each takes seconds
    strange = [value for value in np.unique(data).tolist() if value not in allowed]
    if not strange:
        return []
    if case.structures is None:
        said = "0 (background), 1 (GTVp) and 2 (GTVn)"
    else:
        parts = [f"{'+'.join(map(str, values))} ({name})" for name, values in case.structures.items()]
        said = ", ".join(["0 (background)", *parts, *([] if case.ignore is None else [f"{case.ignore} (ignored)"])])
    # the largest stands out most: a value of one's own, or a picture taken for a label
    return [f"The label holds the value {max(strange, key=abs):g}; only {said} are allowed."]


def _overlap(a: Volume, b: Volume) -> float:
    """Volume of the common box over the smaller box."""
    (a_low, a_high), (b_low, b_high) = a.box_mm(), b.box_mm()
    common = np.clip(np.minimum(a_high, b_high) - np.maximum(a_low, b_low), 0, None).prod()
    return float(common / min((a_high - a_low).prod(), (b_high - b_low).prod()))


def load_usable(
    cases: Iterable[Case],
    *,
    prepare_one: Callable[[Case], Ready],
    skip_unreadable: bool = True,
    log: logging.Logger | None = None,
) -> tuple[list[tuple[Case, Ready]], int]:
    """Prepare every case; unreadable ones are named in the center's own log, skipped and counted.

    Returns:
        the usable cases with what `prepare_one` made of them, in order, and the number of skipped cases.

    Raises:
        DataError: ``skip_unreadable`` is off and a case is unreadable, or no case is usable; every problem with the
            number of cases it concerns.
    """
    log = log or logging.getLogger("fedgraft.center")
    ready: list[tuple[Case, Ready]] = []
    problems, skipped = Counter[str](), 0
    for case in cases:
        try:
            ready.append((case, prepare_one(case)))
        except DataError as error:
            skipped += 1
            problems.update(error.problems)
            log.warning("center=%s case=%s unreadable: %s", case.center, case.patient, " ".join(error.problems))
    if problems and not (skip_unreadable and ready):
        raise DataError([f"{_cases(count)}: {sentence}" for sentence, count in sorted(problems.items())])
    return ready, skipped


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"
