"""Who is at a center: an outcome that cannot be used stops the steps that need it, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from client.center.patients import part_of
from client.data.case import Case
from common.config.load import compose_run
from common.data.batch import CT
from common.errors import DataError

WHY = "No time of 'rfs' is longer than 60 days: are they months?"


def test_an_outcome_that_cannot_be_used_stops_the_steps_that_need_it_and_no_others(tmp_path):
    steps = compose_run(["curriculum=smoke"]).steps
    [segmentation, *_] = [step for step in steps.values() if step.task.kind == "segmentation"]
    prognosis = compose_run(["curriculum=quickstart"]).steps["relapse"]
    case = Case("A-1", "A", {CT: tmp_path}, tmp_path, {}, None, None, None, None, untold=(WHY,))
    everyone = [case, replace(case, patient="A-2")]
    sides = {"A-1": "train", "A-2": "test"}
    assert [c.patient for c in part_of(everyone, sides, segmentation, "test")] == ["A-2"]
    with pytest.raises(DataError) as error:
        part_of(everyone, sides, prognosis, "test")
    assert error.value.problems == [WHY]
