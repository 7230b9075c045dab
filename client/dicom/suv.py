"""Standardized uptake value by body weight (SUVbw) from a PET series in Bq/mL.

SUVbw = activity concentration [Bq/mL] * body weight [g] / dose [Bq], with the dose decayed to the moment to which the
image was decay-corrected (QIBA's vendor-neutral pseudo-code for SUV): the injection itself (DecayCorrection ADMIN) or
the start of the scan (START). A series that the scanner already stored as SUVbw (units GML) keeps its values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from client.dicom.moments import join, moment_of, read_moment, zone_of
from client.dicom.values import ODD, decoded, has, items, number, text, words
from common.errors import DataError

GE_OWNER, GE_GROUP, GE_SCAN_TIME = "GEMS_PETD_01", 0x0009, 0x0D
WEIGHTS_KG = (2.0, 400.0)
DOSES_BQ = (1e6, 5e9)
LONGEST = timedelta(hours=12)  # from injection to scan
DOSE = "RadiopharmaceuticalInformationSequence"
ONE_VALUE = ("Units", "DecayCorrection", "PatientWeight", "SUVType")  # of a series; slices that differ are two series


@dataclass(frozen=True)
class Suv:
    """What turns the stored values into SUVbw, and where it came from.

    Args:
        factor: SUVbw per Bq/mL; 1 where the values are SUVbw already.
        weight_kg, dose_bq: as recorded; minutes from injection to the scan's reference time (NaN where not needed and
            not recorded).
        reference: injection, series time, private scan time, frame time, or stored as SUV.
    """

    factor: float
    weight_kg: float
    dose_bq: float
    minutes: float
    reference: str


def suv_of(headers: Sequence[Dataset]) -> Suv:
    """The factor of a PET series.

    Raises:
        DataError: with every reason why it cannot be said.
    """
    first = headers[0]
    differing = [name for name in ONE_VALUE if len({text(one, name) for one in headers}) > 1]
    if differing:
        raise DataError(f"The PET's slices differ in {', '.join(differing)}; export one series.")
    if text(first, "Units").upper() == "GML" and text(first, "SUVType").upper() in ("", "BW"):
        return _stored(first)
    problems = _problems(first)
    if problems:
        raise DataError(problems)
    [dose_item] = items(first, DOSE)
    weight, dose, half_life = (
        _known(number(item, name))
        for item, name in (
            (first, "PatientWeight"),
            (dose_item, "RadionuclideTotalDose"),
            (dose_item, "RadionuclideHalfLife"),
        )
    )
    if text(first, "DecayCorrection").upper() == "ADMIN":  # the dose as injected counts, whenever the scan was
        return Suv(weight * 1000 / dose, weight, dose, _minutes_if_known(headers, dose_item, half_life), "injection")
    scan, reference = _scan_start(headers, half_life)
    waited = _checked(scan - _injection(dose_item, scan, first))
    left = dose * math.exp(-math.log(2) * waited.total_seconds() / half_life)
    return Suv(weight * 1000 / left, weight, dose, waited.total_seconds() / 60, reference)


def _stored(first: Dataset) -> Suv:
    """DICOM: units GML are SUV, by body weight unless SUVType says otherwise."""
    missing = _uncorrected(first)
    if missing:
        raise DataError(missing)
    return Suv(1.0, math.nan, math.nan, math.nan, "stored as SUV")


def _problems(first: Dataset) -> list[str]:
    units, decay = text(first, "Units").upper(), text(first, "DecayCorrection").upper()
    doses = items(first, DOSE)
    item = doses[0] if doses else Dataset()
    problems = []
    if units != "BQML":
        kind = f" by {text(first, 'SUVType')}" if units == "GML" else ""
        problems.append(
            f"The PET is in units '{units or 'not named'}'{kind}; only Bq/mL (BQML) can be turned into SUV by body "
            "weight."
        )
    problems += _uncorrected(first)
    if decay not in ("START", "ADMIN"):
        problems.append(
            f"The PET's DecayCorrection is '{decay or 'not named'}'; START and ADMIN can be turned into SUV."
        )
    if len(doses) > 1:
        problems.append(f"The PET records {len(doses)} injections; which of them made the image cannot be said.")
    problems += _number(first, "PatientWeight", "body weight", WEIGHTS_KG, "kg")
    problems += _number(item, "RadionuclideTotalDose", "injected dose", DOSES_BQ, "Bq")
    problems += _number(item, "RadionuclideHalfLife", "half-life", (60.0, 1e6), "s")
    started = ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime")
    if decay != "ADMIN" and not any(text(item, name) for name in started):
        problems.append("The PET does not record the time of injection; add it or export the series from the scanner.")
    return problems


def _uncorrected(first: Dataset) -> list[str]:
    corrections, decay = set(words(first, "CorrectedImage")), text(first, "DecayCorrection").upper()
    problems = []
    if "DECY" not in corrections and decay != "ADMIN":
        problems.append("The PET is not decay-corrected (CorrectedImage lacks DECY); export the corrected series.")
    if "ATTN" not in corrections:
        problems.append(
            "The PET is not attenuation-corrected (CorrectedImage lacks ATTN); export the corrected series."
        )
    return problems


def _number(item: Dataset, name: str, what: str, limits: tuple[float, float], unit: str) -> list[str]:
    value = number(item, name)
    if value is None and has(item, name) and text(item, name):
        return [f"The PET's {what} is '{text(item, name)[:20]}', which is not one number; correct it."]
    if value is None:
        return [f"The PET does not record the {what}; add it or export the series from the scanner."]
    if not limits[0] <= value <= limits[1]:
        return [
            f"The PET's {what} is {value:g}, not from {limits[0]:g} to {limits[1]:g} {unit}; correct its "
            "unit or its value."
        ]
    return []


def _known(value: float | None) -> float:
    assert value is not None  # `_problems` has refused it
    return value


def _minutes_if_known(headers: Sequence[Dataset], item: Dataset, half_life: float) -> float:
    """From injection to scan where both are recorded: it is not needed, but an impossible one is told."""
    try:
        scan, _ = _scan_start(headers, half_life)
        injected = _injection(item, scan, headers[0])
    except DataError:
        return math.nan
    return _checked(scan - injected).total_seconds() / 60


def _checked(waited: timedelta) -> timedelta:
    if not timedelta(0) <= waited <= LONGEST:
        raise DataError(
            f"The scan begins {waited.total_seconds() / 3600:.1f} hours after the injection; correct the "
            "time of injection."
        )
    return waited


def _scan_start(headers: Sequence[Dataset], half_life: float) -> tuple[datetime, str]:
    """The moment to which START corrects: the series time, unless the series was made after it was acquired.

    Without any acquisition time nobody can tell a series time from the time of a later reconstruction.
    """
    first = headers[0]
    acquired = [moment_of(one, "Acquisition") for one in headers]
    series = moment_of(first, "Series")
    known = [moment for moment in acquired if moment is not None]
    if series is not None and known and series <= min(known):
        return series, "series time"
    private = _private_scan_time(first)
    if private is not None:
        return private, "private scan time"
    if not known:
        raise DataError(
            "The PET does not record when it was acquired (AcquisitionDate and AcquisitionTime, or "
            "AcquisitionDateTime), so that its series time cannot be told from the time of a later reconstruction; "
            "export it from the scanner."
        )
    earliest = min(range(len(headers)), key=lambda i: acquired[i] or datetime.max)
    return _from_frame(headers[earliest], min(known), half_life), "frame time"


def _private_scan_time(one: Dataset) -> datetime | None:
    """GE's own scan time, if this number is GE's here: private numbers belong to whoever reserved their block."""
    try:
        value = one.private_block(GE_GROUP, GE_OWNER)[GE_SCAN_TIME].value
        return read_moment(decoded(value), zone=zone_of(one))
    except (*ODD, DataError):
        return None


def _from_frame(one: Dataset, acquired: datetime, half_life: float) -> datetime:
    """FrameReferenceTime: how long after the reference the frame had its average activity (QIBA, Siemens)."""
    reference, lasted = number(one, "FrameReferenceTime"), number(one, "ActualFrameDuration")
    if reference is None or lasted is None:
        return acquired
    rate, duration = math.log(2) / half_life, lasted / 1000
    lost = rate * duration
    average = math.log(lost / (1 - math.exp(-lost))) / rate if lost > 0 else 0.0
    return acquired - timedelta(seconds=reference / 1000 - average)


def _injection(item: Dataset, scan: datetime, first: Dataset) -> datetime:
    """Date and time where recorded; else the last such time of day before the scan."""
    whole = text(item, "RadiopharmaceuticalStartDateTime")
    if whole:
        return read_moment(whole, zone=zone_of(first))
    moment = join(scan.strftime("%Y%m%d"), text(item, "RadiopharmaceuticalStartTime"))
    return moment if moment <= scan else moment - timedelta(days=1)
