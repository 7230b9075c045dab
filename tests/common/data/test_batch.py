"""Names of modalities: which are images, and in which order they are written."""

from __future__ import annotations

from common.data.batch import MODALITY, in_order, mode_of, volumes_of


def test_everything_but_reports_and_records_is_a_volume():
    given = ["RECORD", "T1C", "EHR", "PET", "FLAIR", "CT", "PET"]
    assert in_order(given) == ("CT", "PET", "FLAIR", "T1C", "EHR", "RECORD")
    assert volumes_of(given) == ("CT", "PET", "FLAIR", "T1C")
    assert mode_of(["MR", "EHR", "CT"]) == "CT+MR+EHR"


def test_names_are_capitals_without_a_plus():
    assert [bool(MODALITY.fullmatch(name)) for name in ("MR", "T1C", "mr", "CT+MR", "", "1T")] == [True, True] + [
        False
    ] * 4
