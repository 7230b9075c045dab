"""Standardized uptake value by body weight (SUVbw) from a PET series in Bq/mL.

SUVbw = activity concentration [Bq/mL] * body weight [g] / dose [Bq], with the dose decayed to the moment to which the
image was decay-corrected (QIBA's vendor-neutral pseudo-code for SUV): the injection itself (DecayCorrection ADMIN) or
the start of the scan (START).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from common.errors import DataError

GE_SCAN_TIME = (0x0009, 0x100D)
WEIGHTS_KG = (2.0, 400.0)
DOSES_BQ = (1e6, 5e9)
LONGEST = timedelta(hours=12)  # from injection to scan


@dataclass(frozen=True)
class Suv:
    """What turns Bq/mL into SUVbw, and where it came from.

    Args:
        factor: SUVbw per Bq/mL.
        weight_kg, dose_bq: as recorded; minutes from injection to the scan's reference time.
        reference: injection, series time, private scan time, or frame time.
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
    problems = _problems(first)
    if problems:
        raise DataError(problems)
    dose_item = first.RadiopharmaceuticalInformationSequence[0]
    weight, dose = float(first.PatientWeight), float(dose_item.RadionuclideTotalDose)
    half_life = float(dose_item.RadionuclideHalfLife)
    scan, reference = _scan_start(headers, half_life)
    injected = _injection(dose_item, scan)
    waited = scan - injected
    if not timedelta(0) <= waited <= LONGEST:
        raise DataError(
            f"The scan begins {waited.total_seconds() / 3600:.1f} hours after the injection; correct the "
            "time of injection."
        )
    if str(first.DecayCorrection).upper() == "ADMIN":
        return Suv(weight * 1000 / dose, weight, dose, waited.total_seconds() / 60, "injection")
    left = dose * math.exp(-math.log(2) * waited.total_seconds() / half_life)
    return Suv(weight * 1000 / left, weight, dose, waited.total_seconds() / 60, reference)


def _problems(first: Dataset) -> list[str]:
    units = str(first.get("Units", "")).upper()
    corrections = {str(word).upper() for word in first.get("CorrectedImage", [])}
    decay = str(first.get("DecayCorrection", "")).upper()
    item = (first.get("RadiopharmaceuticalInformationSequence") or [Dataset()])[0]
    problems = []
    if units != "BQML":
        problems.append(f"The PET is in units '{units or 'not named'}'; only Bq/mL (BQML) can be turned into SUV.")
    if "DECY" not in corrections and decay != "ADMIN":
        problems.append("The PET is not decay-corrected (CorrectedImage lacks DECY); export the corrected series.")
    if "ATTN" not in corrections:
        problems.append(
            "The PET is not attenuation-corrected (CorrectedImage lacks ATTN); export the corrected series."
        )
    if decay not in ("START", "ADMIN"):
        problems.append(
            f"The PET's DecayCorrection is '{decay or 'not named'}'; START and ADMIN can be turned into SUV."
        )
    problems += _number(first, "PatientWeight", "body weight", WEIGHTS_KG, "kg")
    problems += _number(item, "RadionuclideTotalDose", "injected dose", DOSES_BQ, "Bq")
    problems += _number(item, "RadionuclideHalfLife", "half-life", (60.0, 1e6), "s")
    if not (item.get("RadiopharmaceuticalStartDateTime") or item.get("RadiopharmaceuticalStartTime")):
        problems.append("The PET does not record the time of injection; add it or export the series from the scanner.")
    return problems


def _number(item: Dataset, name: str, what: str, limits: tuple[float, float], unit: str) -> list[str]:
    value = item.get(name)
    if value in (None, ""):
        return [f"The PET does not record the {what}; add it or export the series from the scanner."]
    if not limits[0] <= float(value) <= limits[1]:
        return [
            f"The PET's {what} is {float(value):g}, not from {limits[0]:g} to {limits[1]:g} {unit}; correct its "
            "unit or its value."
        ]
    return []


def _scan_start(headers: Sequence[Dataset], half_life: float) -> tuple[datetime, str]:
    """The moment to which START corrects: the series time, unless the series was made after it was acquired."""
    first = headers[0]
    acquired = [_moment(one, "Acquisition") for one in headers]
    series = _moment(first, "Series")
    known = [moment for moment in acquired if moment is not None]
    if series is not None and (not known or series <= min(known)):
        return series, "series time"
    if GE_SCAN_TIME in first:
        return _datetime(str(first[GE_SCAN_TIME].value)), "private scan time"
    if not known:
        raise DataError("The PET records neither its series time nor an acquisition time; export it from the scanner.")
    earliest = min(range(len(headers)), key=lambda i: acquired[i] or datetime.max)
    return _from_frame(headers[earliest], min(known), half_life), "frame time"


def _from_frame(one: Dataset, acquired: datetime, half_life: float) -> datetime:
    """FrameReferenceTime: how long after the reference the frame had its average activity (QIBA, Siemens)."""
    if one.get("FrameReferenceTime") in (None, "") or one.get("ActualFrameDuration") in (None, ""):
        return acquired
    rate, duration = math.log(2) / half_life, float(one.ActualFrameDuration) / 1000
    lost = rate * duration
    average = math.log(lost / (1 - math.exp(-lost))) / rate if lost > 0 else 0.0
    return acquired - timedelta(seconds=float(one.FrameReferenceTime) / 1000 - average)


def _injection(item: Dataset, scan: datetime) -> datetime:
    """Date and time where recorded; else the last such time of day before the scan."""
    whole = str(item.get("RadiopharmaceuticalStartDateTime") or "")
    if whole:
        return _datetime(whole)
    moment = _datetime(scan.strftime("%Y%m%d") + str(item.RadiopharmaceuticalStartTime))
    return moment if moment <= scan else moment - timedelta(days=1)


def _moment(one: Dataset, name: str) -> datetime | None:
    date, time = str(one.get(f"{name}Date") or ""), str(one.get(f"{name}Time") or "")
    return _datetime(date + time) if date and time else None


def _datetime(text: str) -> datetime:
    """DICOM's YYYYMMDDHHMMSS.ffffff, without its offset from UTC: all times of a series share one."""
    digits, _, fraction = text.split("+")[0].split("-")[0].partition(".")
    try:
        whole = datetime.strptime(digits.ljust(14, "0")[:14], "%Y%m%d%H%M%S")
        return whole + timedelta(microseconds=int(fraction.ljust(6, "0")[:6] or 0))
    except ValueError as error:
        raise DataError("A time in the PET's header cannot be read; export the series from the scanner.") from error
