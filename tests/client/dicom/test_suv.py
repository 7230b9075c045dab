"""SUVbw from DICOM headers, against values worked out by hand (F-18, 80 kg, 400 MBq, one hour)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.dicom.suv import GE_GROUP, GE_OWNER, GE_SCAN_TIME, suv_of
from common.errors import DataError
from tests.helpers.dicom import pet_header

DECAYED = 4e8 * 2 ** (-3600 / 6586.2)


def headers(**changes):
    one = Dataset()
    one.SeriesDate = "20240305"
    for name, value in pet_header(**changes).items():
        if value is not None:
            setattr(one, name, value)
    return one


def test_an_image_corrected_to_the_scans_start_uses_the_dose_that_was_left():
    found = suv_of([headers()])
    assert found.factor == pytest.approx(80_000 / DECAYED, rel=1e-12) and found.factor == pytest.approx(
        2.9212e-4, rel=1e-4
    )
    assert (found.weight_kg, found.dose_bq, found.minutes, found.reference) == (80.0, 4e8, 60.0, "series time")


def test_an_image_corrected_to_the_injection_uses_the_whole_dose():
    found = suv_of([headers(DecayCorrection="ADMIN")])
    assert found.factor == pytest.approx(80_000 / 4e8, rel=1e-12) and found.reference == "injection"


@given(minutes=st.integers(1, 300), half_life=st.floats(1200, 1e5), weight=st.floats(20, 200))
def test_waiting_one_half_life_doubles_the_factor(minutes, half_life, weight):
    def factor(start):
        clock = f"{11 + start // 60:02d}{start % 60:02d}00"
        moment = {"SeriesTime": clock, "AcquisitionTime": clock}
        return suv_of([headers(RadionuclideHalfLife=half_life, PatientWeight=weight, **moment)]).factor

    assert factor(minutes) / factor(0) == pytest.approx(2 ** (60 * minutes / half_life), rel=1e-9)


def test_an_injection_before_midnight_is_of_the_day_before():
    clock = {"SeriesTime": "003000", "AcquisitionTime": "003000", "RadiopharmaceuticalStartTime": "233000"}
    assert suv_of([headers(**clock)]).minutes == 60.0
    whole = {**clock, "RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20240304233000.50"}
    assert suv_of([headers(**whole)]).minutes == pytest.approx(60 - 0.5 / 60)


def test_a_series_made_after_the_scan_is_dated_by_the_scanner():
    later = headers(SeriesTime="150000")
    assert suv_of([later]).reference == "frame time" and suv_of([later]).minutes == 60.0
    later.private_block(GE_GROUP, GE_OWNER, create=True).add_new(GE_SCAN_TIME, "LO", "20240305103000.00")
    found = suv_of([later])
    assert (found.reference, found.minutes) == ("private scan time", 30.0)


def test_a_frames_reference_time_leads_back_to_the_start():
    """The frame was acquired at 11:10; its average activity came 600 s + t after the start, t within the frame."""
    rate, duration = math.log(2) / 6586.2, 180.0
    average = math.log(rate * duration / (1 - math.exp(-rate * duration))) / rate
    frames = {"FrameReferenceTime": (600 + average) * 1000, "ActualFrameDuration": duration * 1000}
    one = headers(SeriesTime="150000", AcquisitionTime="111000", **frames)
    assert suv_of([one]).minutes == pytest.approx(60.0, abs=1e-6)
    assert 0 < average < duration / 2


def test_the_earliest_slice_counts_whatever_the_order():
    slices = [headers(SeriesTime="150000", AcquisitionTime=clock) for clock in ("111000", "110000", "112000")]
    assert suv_of(slices).minutes == suv_of(slices[::-1]).minutes == 60.0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"Units": "CNTS"}, "The PET is in units 'CNTS'; only Bq/mL"),
        ({"Units": "GML", "SUVType": "LBM"}, "The PET is in units 'GML' by LBM; only Bq/mL"),
        ({"Units": None}, "The PET is in units 'not named'"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is 'NONE'; START and ADMIN"),
        ({"CorrectedImage": ["ATTN"]}, "not decay-corrected"),
        ({"CorrectedImage": ["DECY"]}, "not attenuation-corrected"),
        ({"PatientWeight": None}, "does not record the body weight"),
        ({"PatientWeight": 80_000.0}, "body weight is 80000, not from 2 to 400 kg"),
        ({"RadionuclideTotalDose": 400.0}, r"injected dose is 400, not from 1e\+06"),
        ({"RadiopharmaceuticalStartTime": None}, "does not record the time of injection"),
        ({"RadiopharmaceuticalStartTime": "110001"}, "begins 24.0 hours after the injection"),
        ({"RadiopharmaceuticalStartTime": "236000"}, "A time in the PET's header cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_cannot_be_turned_into_suv_is_said(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        suv_of([headers(**changes)])


def test_every_reason_is_named_at_once():
    with pytest.raises(DataError) as refusal:
        suv_of([headers(Units="CNTS", PatientWeight=None, RadionuclideTotalDose=1.0)])
    assert len(refusal.value.problems) == 3


def test_a_dose_sequence_that_is_missing_is_no_crash():
    one = headers()
    one.RadiopharmaceuticalInformationSequence = Sequence()
    with pytest.raises(DataError, match="injected dose"):
        suv_of([one])


def test_a_private_number_is_read_under_its_owner_only_as_bytes_too():
    later = headers(SeriesTime="150000")
    plain = suv_of([later])
    for creator, vr, value, reference in [
        (None, "UN", b"20240305103000.00 ", "frame time"),
        ("OTHER VENDOR BLOCK", "LO", "20240305103000.00", "frame time"),
        (GE_OWNER, "UN", b"20240305103000.00 ", "private scan time"),
        (GE_OWNER, "LO", "HELLO", "frame time"),
        (GE_OWNER, "LO", None, "frame time"),
    ]:
        one = headers(SeriesTime="150000")
        if creator:
            one.add_new((GE_GROUP, 0x0010), "LO", creator)
        one.add_new((GE_GROUP, 0x100D), vr, value)
        found = suv_of([one])
        assert found.reference == reference
        assert (found.factor == plain.factor) == (reference == "frame time")


def test_without_a_time_of_acquisition_a_series_time_is_not_believed():
    with pytest.raises(DataError, match="does not record when it was acquired"):
        suv_of([headers(AcquisitionTime=None, AcquisitionDate=None)])
    at_injection = headers(AcquisitionTime=None, AcquisitionDate=None, DecayCorrection="ADMIN")
    assert suv_of([at_injection]).factor == pytest.approx(80_000 / 4e8) and math.isnan(suv_of([at_injection]).minutes)


def test_values_that_are_stored_as_suv_stay():
    found = suv_of([headers(Units="GML", PatientWeight=None)])
    assert (found.factor, found.reference) == (1.0, "stored as SUV")
    assert suv_of([headers(Units="GML", SUVType="BW")]).factor == 1.0


@pytest.mark.parametrize("name", ["Units", "DecayCorrection", "PatientWeight"])
def test_slices_that_differ_are_two_series(name):
    with pytest.raises(DataError, match=f"slices differ in {name}"):
        suv_of([headers(), headers(**{name: {"PatientWeight": 70.0}.get(name, "ADMIN")})])


def test_two_injections_and_a_weight_that_is_no_number_are_refused():
    one = headers()
    one.RadiopharmaceuticalInformationSequence = Sequence([*one.RadiopharmaceuticalInformationSequence] * 2)
    with pytest.raises(DataError, match="records 2 injections"):
        suv_of([one])
    two = headers(PatientWeight=None)
    two.add_new("PatientWeight", "LO", "80 kg")
    with pytest.raises(DataError, match="body weight is '80 kg', which is not one number"):
        suv_of([two])
