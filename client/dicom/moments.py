"""Dates and times in every spelling of DICOM: a date and a time, a date-time, the old dots and colons, an offset.

A time without its minutes is none: an hour more or less would change an uptake value by a third.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from client.dicom.values import text
from common.errors import DataError

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME = re.compile(r"(\d{2}):?(\d{2})(?::?(\d{2})(?:\.(\d{0,6}))?)?")
_WHOLE = re.compile(r"(\d{8})(\d{4}(?:\d{2}(?:\.\d{0,6})?)?)([+-]\d{4})?")
SAME_S = 1.0  # by which two spellings of one moment may differ: fractions are often cut off


def date_of(one: Dataset, name: str) -> str:
    """A date as YYYYMMDD; empty where it is absent or none."""
    match = _DATE.fullmatch(text(one, name))
    return "".join(match.groups()) if match else ""


def moment_of(one: Dataset, name: str) -> datetime | None:
    """When something was, from ``<name>DateTime`` or ``<name>Date`` and ``<name>Time``; None where neither is there.

    Raises:
        DataError: one of them cannot be read, or the two contradict each other.
    """
    whole = text(one, f"{name}DateTime")
    date, time = text(one, f"{name}Date"), text(one, f"{name}Time")
    said = [] if not whole else [read_moment(whole, zone=zone_of(one))]
    if date and time:
        said.append(join(date, time))
    if len(said) == 2 and abs((said[0] - said[1]).total_seconds()) > SAME_S:
        raise DataError(
            f"The PET's header gives two different times of {_plain(name)} ({name}DateTime against {name}Date and "
            f"{name}Time); correct the header or export the series from the scanner."
        )
    return said[0] if said else None


def join(date: str, time: str) -> datetime:
    """A moment from a date and a time of day. Raises DataError."""
    day, clock = _DATE.fullmatch(date), _TIME.fullmatch(time)
    if day is None or clock is None:
        raise _unreadable()
    return _moment("".join(day.groups()), clock.group(1) + clock.group(2) + (clock.group(3) or "00"), clock.group(4))


def read_moment(whole: str, *, zone: timedelta | None = None) -> datetime:
    """A date-time in the series' own clock. Raises DataError.

    Args:
        zone: the series' offset from UTC, where its header says one (TimezoneOffsetFromUTC): a date-time with an offset
            of its own is moved to it. Without it all times of a series share one clock.
    """
    match = _WHOLE.fullmatch(whole)
    if match is None:
        raise _unreadable()
    clock, _, fraction = match[2].partition(".")
    moment = _moment(match[1], clock.ljust(6, "0"), fraction)
    own = offset(match[3] or "")
    return moment if own is None or zone is None else moment - own + zone


def zone_of(one: Dataset) -> timedelta | None:
    """The header's offset from UTC."""
    return offset(text(one, "TimezoneOffsetFromUTC"))


def offset(written: str) -> timedelta | None:
    """``+0130`` as a time difference; None where nothing such is written."""
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", written)
    if match is None:
        return None
    return (1 if match[1] == "+" else -1) * timedelta(hours=int(match[2]), minutes=int(match[3]))


def _moment(day: str, clock: str, fraction: str | None) -> datetime:
    leap = clock.endswith("60")  # DICOM allows the leap second
    try:
        whole = datetime.strptime(day + (clock[:4] + "59" if leap else clock), "%Y%m%d%H%M%S")
    except ValueError as error:
        raise _unreadable() from error
    return whole + timedelta(seconds=int(leap), microseconds=int((fraction or "").ljust(6, "0")))


def _unreadable() -> DataError:
    return DataError("A time in the PET's header cannot be read; export the series from the scanner.")


def _plain(name: str) -> str:
    return {"Acquisition": "acquisition", "Series": "the series"}.get(name, name)
