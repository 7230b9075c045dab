"""One moment in every spelling of DICOM is one moment; what cannot be read is refused."""

from datetime import datetime

import pytest
from pydicom.dataset import Dataset

from client.dicom.moments import date_of, moment_of
from common.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")
ELEVEN = datetime(2024, 3, 5, 11, 0)


def header(zone=None, **elements):
    one = Dataset()
    for name, value in elements.items():
        setattr(one, f"Acquisition{name}", value)
    if zone:
        one.TimezoneOffsetFromUTC = zone
    return one


SPELLINGS = [
    {"Date": "20240305", "Time": "110000"},
    {"Date": "20240305", "Time": "1100"},
    {"Date": "20240305", "Time": "110000.000000"},
    {"Date": "2024.03.05", "Time": "11:00:00"},
    {"Date": "20240305 ", "Time": "110000 "},
    {"DateTime": "20240305110000"},
    {"DateTime": "202403051100"},
    {"DateTime": "20240305110000.000000"},
    {"DateTime": "20240305110000+0100"},
    {"DateTime": "20240305100000+0000", "zone": "+0100"},
    {"DateTime": "20240305110000.5", "Date": "20240305", "Time": "110000"},
    {"DateTime": "20240305105960"},  # a leap second
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_every_spelling_is_the_same_moment(spelling):
    found = moment_of(header(**spelling), "Acquisition")
    assert found is not None and abs((found - ELEVEN).total_seconds()) <= 0.5


@pytest.mark.parametrize(
    "spelling", [{}, {"Date": "20240305"}, {"Time": "1100"}, {"DateTime": ""}, {"Date": None}], ids=str
)
def test_half_a_moment_is_none(spelling):
    assert moment_of(header(**spelling), "Acquisition") is None


@pytest.mark.parametrize(
    "spelling",
    [
        {"Date": "20240305", "Time": "11"},  # an hour more or less
        {"Date": "20240305", "Time": "1160"},
        {"Date": "20241305", "Time": "1100"},
        {"Date": "5 March", "Time": "1100"},
        {"DateTime": "20240305"},
        {"DateTime": "2024030511"},
        {"DateTime": "b'20240305110000'"},
        {"DateTime": "20240305120000", "Date": "20240305", "Time": "110000"},
    ],
    ids=str,
)
def test_what_cannot_be_read_or_contradicts_itself_is_refused(spelling):
    with pytest.raises(DataError, match=r"cannot be read|two different times"):
        moment_of(header(**spelling), "Acquisition")


def test_dates_are_compared_in_one_spelling():
    one = Dataset()
    one.StudyDate = "2024.03.05"
    assert date_of(one, "StudyDate") == "20240305" and date_of(Dataset(), "StudyDate") == ""
