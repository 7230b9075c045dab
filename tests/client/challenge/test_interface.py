"""The challenge's files: a record from ehr.json, days from a curve, and what the bank could not answer."""

from __future__ import annotations

import json

import pytest

from client.challenge.interface import MASK, N_STAGE, RFS, T_STAGE, absent, days_of, only_image, read_ehr, stage_of
from common.errors import DataError


def test_a_record_as_the_challenge_writes_it(tmp_path):
    told = {"CenterID": 5, "Age": 61, "Gender": 1, "Tobacco Consumption": None, "Alcohol Consumption": 0.0}
    told |= {"Performance Status": 7, "Treatment": "Chemo-RT", "HPV Status": 1.0, "T-stage": "nan"}
    (tmp_path / "ehr.json").write_text(json.dumps(told))
    record, refused = read_ehr(tmp_path / "ehr.json")
    assert record == {"age": 61.0, "gender": "male", "alcohol": 0.0, "hpv": 1.0, "treatment": "chemoradiotherapy"}
    assert refused == ["performance status is not from 0 to 4; it is left out."]
    assert read_ehr(tmp_path / "none.json") == ({}, [])
    (tmp_path / "ehr.json").write_text("[]")
    with pytest.raises(DataError, match="no JSON object"):
        read_ehr(tmp_path / "ehr.json")


def test_days_are_the_area_under_the_curve_and_a_risk_counts_against_them():
    assert days_of({"risk": 0.4, "days": [100.0, 300.0], "relapse_free": [1.0, 0.5]}) == 100 + 150
    assert days_of({"risk": 0.4, "days": [100.0, 300.0], "relapse_free": [0.9, 0.2]}) == 95 + 110
    assert days_of({"risk": 0.4}) == -0.4


def test_a_stage_is_the_most_probable_class():
    assert stage_of({"probabilities": {"t1": 0.2, "t2": 0.5, "t3": 0.3}}) == "T2"


def test_one_image_a_folder_and_what_is_absent(tmp_path):
    with pytest.raises(DataError, match="holds 0 "):
        only_image(tmp_path, "ct")
    assert absent([MASK, RFS]) == [N_STAGE, T_STAGE]
