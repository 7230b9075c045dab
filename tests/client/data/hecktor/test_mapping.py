"""A hospital's table is a mapping: the shipped ones read their editions, a new one needs no code."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.center.center import Center
from client.data.hecktor.mapping import SHIPPED, load_mapping, mapping_for, read_cell, shipped_mappings
from client.data.hecktor.tables import read_tables
from client.data.layouts import find_cases
from common.data.records import SCHEMA
from common.errors import DataError

OWN = """
name: our registry
patient: Patient
variables:
  age: {column: Alter}
  gender: {column: Geschlecht, values: {mann: male, frau: female, divers: null}}
  performance_status: ECOG
outcomes:
  rfs: {event: {column: Rezidiv, values: {ja: 1, nein: 0}}, time: Monate, unit: months}
"""


def test_a_new_hospitals_table_is_read_through_its_own_mapping(tmp_path):
    (tmp_path / "registry.csv").write_text(
        "Patient,Alter,Geschlecht,ECOG,Rezidiv,Monate,Bemerkung\nNEU-001,61,Mann,1,ja,10,x\nNEU-002,,divers,,nein,24,y\n"
    )
    path = tmp_path / "registry.yaml"
    path.write_text(OWN)
    assert read_tables(tmp_path).fields == {}  # the shipped mappings know no such table
    first, second = find_cases(tmp_path, mapping=str(path))
    assert first.record == {"age": 61.0, "gender": "male", "performance_status": 1.0} and second.record == {}
    assert (first.days, first.event) == (pytest.approx(304.375), 1)
    assert (second.days, second.event) == (pytest.approx(730.5), 0)
    (tmp_path / "center.yaml").write_text(f"code: NEU\nroot: {tmp_path}\nmapping: {path}\n")
    assert [case.patient for case in Center.open(tmp_path / "center.yaml").cases] == ["NEU-001", "NEU-002"]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ("patientid,tnm edition,age,gender,tobacco,hpv status", "2021 clinical"),
        ("patientid,progression,progression free survival", "2021 endpoint"),
        ("patientid,task 1,task 2,gender,age,weight,tobacco,chemotherapy", "2022 clinical"),
        ("patientid,relapse,rfs", "2022 endpoint"),
        ("patientid,age,gender,tobacco consumption,treatment,relapse,rfs", "2025 and 2026"),
        ("patientid,mskcc type,age,gender,relapse,rfs", "sts7"),
        ("patientid,center,age,gender,tobacco consumption,gtv_ml,lrr_days,relapse,rfs", "hn4"),
    ],
)
def test_each_edition_is_told_from_the_others_by_its_columns(columns, name):
    found = mapping_for(set(columns.split(",")), shipped_mappings())
    assert found is not None and found.name == name


def test_a_table_of_something_else_has_no_mapping():
    assert mapping_for({"patientid", "nurse"}, shipped_mappings()) is None


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_mappings_name_no_center_or_follow_up_as_a_variable(path):
    mapping = load_mapping(path)
    named = {source.column for source in mapping.variables.values()}
    assert not named & {"centerid", "center", "death", "os", "rfs", "relapse", "lungmets", "lrr", "dm", "qc_flag"}
    assert mapping.patient == "patientid"


@pytest.mark.parametrize(
    ("name", "cell", "value"),
    [
        ("t_stage", "T4a", "t4"),
        ("t_stage", "2.0", "t2"),
        ("t_stage", "Tx", None),
        ("n_stage", "N2b", "n2"),
        ("m_stage", "Mx", None),
        ("hpv", "1.0", 1.0),
        ("hpv", "Negative", 0.0),
        ("tumor_site", "Oral cavity", "oral_cavity"),
        ("grade", "High", "high"),
        ("age", "61.5", 61.5),
        ("site", "Left THIGH!", "left thigh"),
    ],
)
def test_cells_speak_the_schemas_language(name, cell, value):
    assert read_cell(SCHEMA[name], cell, {}) == value


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("t_stage", "T5"),
        ("n_stage", "4"),
        ("age", "sixty"),
        ("age", "-1"),
        ("age", "nan"),
        ("grade", "3"),
        ("gender", "x"),
    ],
)
def test_cells_outside_the_schema_are_refused(name, cell):
    with pytest.raises(ValueError):
        read_cell(SCHEMA[name], cell, {})


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("patient: P\nvariables: {agee: A}", ["'agee' is no variable", "Did you mean 'age'"]),
        ("variables: {age: A}", ["add patient: COLUMN"]),
        ("patient: P\noutcome: {}", ["it has the key 'outcome'"]),
        ("patient: P\noutcomes: {os: {event: D}}", ["outcome 'os' needs event: COLUMN and time: COLUMN"]),
        (
            "patient: P\noutcomes: {os: {event: D, time: T, unit: moons}}",
            ["'moons'; it can be days, weeks, months, years"],
        ),
        ("patient: P\nvariables: {hpv: {column: H, values: {a: 7}}}", ["'hpv' gives 'a' the meaning '7'; use 0 or 1"]),
        ("patient: [", ["is not YAML"]),
    ],
)
def test_a_mapping_with_mistakes_is_refused_with_all_of_them(tmp_path, text, sentences):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        load_mapping(path)
    assert all(any(part in problem for problem in raised.value.problems) for part in sentences)


def test_a_missing_mapping_and_two_columns_of_one_name_are_sentences(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_mapping(tmp_path / "nowhere.yaml")
    (tmp_path / "t.csv").write_text("PatientID,Relapse,RFS (days),RFS (months)\nCHUM-001,0,30,1\n")
    rows = read_tables(Path(tmp_path))
    assert any("several columns called 'rfs'" in problem for problem in rows.problems)
