"""Every edition's layout gives the same list of cases, and every broken folder one sentence per problem."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from client.data.layouts import find_cases, survey
from common.data.batch import CT, PET
from common.data.findings import FINDINGS
from common.errors import DataError


def problems(root: Path, center: str | None = None) -> list[str]:
    with pytest.raises(DataError) as raised:
        find_cases(root, center=center)
    return raised.value.problems


def test_2022_layout_joins_images_label_record_and_outcome(cohort):
    root = cohort("CHUM-001", "CHUM-002", "HMR-001")
    first, second, third = find_cases(root)
    assert [c.patient for c in (first, second, third)] == ["CHUM-001", "CHUM-002", "HMR-001"]
    assert (first.center, third.center) == ("CHUM", "HMR")
    assert first.images == {CT: root / "imagesTr/CHUM-001__CT.nii.gz", PET: root / "imagesTr/CHUM-001__PT.nii.gz"}
    assert first.label == root / "labelsTr/CHUM-001.nii.gz"
    assert first.record == {
        "age": 60.0,
        "gender": "male",
        "weight_kg": 80.0,
        "alcohol": 0.0,
        "performance_status": 1.0,
        "hpv": 1.0,
        "chemotherapy": 1.0,
    }
    assert (first.days, first.event, second.days, second.event) == (200.0, 0, 100.0, 1)
    assert first.findings is None and first.report is None


def test_center_filter_and_labels_with_underscores(cohort):
    root = cohort("CHUM-001", "HMR-001")
    (root / "labelsTr/HMR-001.nii.gz").rename(root / "labelsTr/HMR_001.nii.gz")
    (case,) = find_cases(root, center="HMR")
    assert case.label == root / "labelsTr/HMR_001.nii.gz"


def test_pet_and_label_are_optional(tmp_path, disk):
    disk.save(tmp_path / "imagesTr/CHUM-001__CT.nii.gz", disk.ct())
    (case,) = find_cases(tmp_path)
    assert set(case.images) == {CT} and case.label is None and case.record == {}
    assert case.days is None and case.event is None


def test_2021_layout_with_seven_character_ids_and_old_prefixes(tmp_path, disk):
    for role in ("ct", "pt", "gtvt"):
        disk.save(tmp_path / f"hecktor_nii/CHGJ007_{role}.nii.gz", disk.label())
    (tmp_path / "hecktor2021_patient_info_training.csv").write_text(
        "PatientID,TNM edition,CenterID,Gender (1=M,0=F),Age,Tobacco,Alcohol,Performance status,"
        '"HPV status (0=-, 1=+)",Estimated weight (kg) for SUV,T-stage,N-stage,M-stage,TNM group\n'.replace(
            "Gender (1=M,0=F)", '"Gender (1=M,0=F)"'
        )
        + "CHGJ007,7,1,0,70,1,,,0,66.5,T4a,N2b,Mx,IV\n"
    )
    (tmp_path / "hecktor2021_patient_endpoint_training.csv").write_text(
        "PatientID,Progression,Progression free survival\nCHGJ007,1,321\n"
    )
    (case,) = find_cases(tmp_path, center="HGJ")
    assert (case.patient, case.center, case.days, case.event) == ("HGJ-007", "HGJ", 321.0, 1)
    assert case.label is not None and case.label.name == "CHGJ007_gtvt.nii.gz"
    assert case.record == {
        "age": 70.0,
        "gender": "female",
        "weight_kg": 66.5,
        "tobacco": 1.0,
        "hpv": 0.0,
        "t_stage": "t4",
        "n_stage": "n2",
    }
    assert find_cases(tmp_path, center="CHGJ") == [case]


def test_2025_case_in_several_task_folders_is_one_case(tmp_path, disk):
    for task in (1, 2, 3):
        folder = tmp_path / f"Task {task}/MDA-003"
        disk.save(folder / "MDA-003__CT.nii.gz", disk.ct())
        disk.save(folder / "MDA-003__PT.nii.gz", disk.pet())
    disk.save(tmp_path / "Task 1/MDA-003/MDA-003.nii.gz", disk.label())
    disk.save(tmp_path / "Task 2/MDA-003/MDA-003__CTPlanning.nii.gz", disk.ct())
    disk.save(tmp_path / "Task 2/MDA-003/MDA-003__RTDOSE.nii.gz", disk.pet())
    head = "PatientID,CenterID,Age,Gender,Tobacco Consumption,Alcohol Consumption,Performance Status,Treatment,M-stage"
    row = "MDA-003,5,58,1,0,,2,1,M0"
    (tmp_path / "HECKTOR_2025_Training_Task_1.csv").write_text(f"{head}\n{row}\n")
    (tmp_path / "Task 2/HECKTOR_2025_Training_Task_2.csv").write_text(f"{head},Relapse,RFS\n{row},0,900\n")
    (tmp_path / "HECKTOR_2025_Training_Task_3.csv").write_text(f"{head},HPV Status\n{row},1\n")
    (case,) = find_cases(tmp_path)
    assert set(case.images) == {CT, PET} and case.label == tmp_path / "Task 1/MDA-003/MDA-003.nii.gz"
    assert (case.days, case.event) == (900.0, 0)
    assert case.record == {
        "age": 58.0,
        "gender": "male",
        "tobacco": 0.0,
        "performance_status": 2.0,
        "treatment": "chemoradiotherapy",
        "m_stage": "m0",
        "hpv": 1.0,
    }


def test_2026_layout(tmp_path, disk):
    for name, data in (("__CT", disk.ct()), ("__PT", disk.pet()), ("", disk.label())):
        disk.save(tmp_path / f"USZ-011/USZ-011{name}.nii.gz", data)
    (tmp_path / "HECKTOR_2026_Training_Task.csv").write_text(
        "PatientID,CenterID,Age,Gender,Tobacco Consumption,Alcohol Consumption,HPV Status,Relapse,RFS,T-stage,N-stage\n"
        "USZ-011,8,49,0,,,,1,88,T2,N3\n"
    )
    (case,) = find_cases(tmp_path)
    assert case.record == {"age": 49.0, "gender": "female", "t_stage": "t2", "n_stage": "n3"}
    assert (case.days, case.event, case.label) == (88.0, 1, tmp_path / "USZ-011/USZ-011.nii.gz")


def test_chest_layout_has_findings_in_order_and_reports(tmp_path, disk):
    for number in (1, 2):
        disk.save(tmp_path / f"imagesTr/CHEST-000{number}__CT.nii.gz", disk.ct())
    values = [str(int(name == "Emphysema")) for name in FINDINGS]
    (tmp_path / "chest_labels.csv").write_text(
        f"VolumeName,{','.join(FINDINGS)}\nCHEST-0001,{','.join(values)}\nCHEST-0002.nii.gz,{',' * 17}\n"
    )
    (tmp_path / "chest_reports.csv").write_text(
        'VolumeName,Findings_EN,Impressions_EN\nCHEST-0001,"Air,  trapped.",Emphysema.\n'
    )
    first, second = find_cases(tmp_path, center="CHEST")
    assert first.findings == tuple(int(v) for v in values) and sum(first.findings) == 1
    assert first.report == "Air, trapped. Emphysema."
    assert second.findings == (-1,) * 18 and second.report is None
    assert first.record == {} and first.center == "CHEST"


@pytest.fixture
def chest(tmp_path, disk):
    """Twelve chest cases; ``chest(row)`` writes their labels with the first case's row changed."""
    cells = ",".join(["0", "1"] * 9)
    for number in range(1, 13):
        disk.save(tmp_path / f"imagesTr/CHEST-{number:04d}__CT.nii.gz", disk.ct())

    def write(first, *, more=(), columns=FINDINGS):
        rows = [
            f"CHEST-{n:04d},{first if n == 1 else more[n - 2] if n - 2 < len(more) else cells}" for n in range(1, 13)
        ]
        (tmp_path / "chest_labels.csv").write_text("\n".join([f"VolumeName,{','.join(columns)}", *rows]) + "\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("cell", "read", "told"),
    [("1", 1, ""), ("0.0", 0, ""), ("yes", 1, ""), ("", -1, ""), ("NA", -1, "notes"), ("?", -1, "notes"),
     ("2", -1, "odd"), ("-1", -1, "odd"), ("0_1", -1, "odd"), ("maybe", -1, "odd")],
)  # fmt: skip
def test_a_finding_that_cannot_be_read_is_not_known_and_costs_no_other(chest, cell, read, told):
    root = chest(",".join([cell] + ["0"] * 17))
    assert find_cases(root, center="CHEST")[0].findings == (read, *[0] * 17)
    seen = survey(root, center="CHEST")
    assert len(seen.cases) == 12 and seen.problems == []
    assert [name for name in ("notes", "odd") if getattr(seen, name)] == ([told] if told else [])


def test_findings_of_many_that_cannot_be_read_and_a_finding_there_twice_stop_the_center(chest):
    (sentence,) = problems(chest(",".join(["2"] * 18), more=[",".join(["2"] + ["0"] * 17)]), center="CHEST")
    assert sentence == "19 cells of 'chest_labels.csv' are neither 0, 1 nor empty; correct them."
    (sentence,) = problems(chest(",".join("0" * 19), more=[",".join("0" * 19)] * 11, columns=[*FINDINGS, FINDINGS[0]]))
    assert "'chest_labels.csv' has several columns called" in sentence and FINDINGS[0].lower() in sentence


def test_tables_without_images_are_a_cohort_of_records(shared_data):
    cases = find_cases(shared_data / "hn4")
    assert len(cases) == 148 and {c.center for c in cases} == {"CHUM", "CHUS", "HGJ", "HMR"}
    assert all(not c.images and c.days is not None for c in cases)


def test_all_real_sts_cases_are_found_without_leaking_columns(shared_data):
    cases = find_cases(shared_data / "sts7")
    sizes = {name: sum(c.center == name for c in cases) for name in sorted({c.center for c in cases})}
    assert list(sizes) == ["STSA", "STSB", "STSC", "STSD", "STSE", "STSF", "STSG"]
    assert list(sizes.values()) == [5, 3, 3, 4, 3, 5, 3]
    assert sum(c.event or 0 for c in cases) == 14 and all(set(c.images) == {CT, PET} for c in cases)
    assert all(c.label is not None and c.label.parent.name == "labelsTr" for c in cases)
    recorded = {name for c in cases for name in c.record}
    assert recorded == {"age", "gender", "weight_kg", "histology", "site", "grade", "radiotherapy", "surgery"}


# ------------------------------------------------------------------------------------------------------- bad input


def test_missing_root_says_what_to_set(tmp_path):
    (sentence,) = problems(tmp_path / "nowhere")
    assert "does not exist" in sentence and "data.root" in sentence


def test_empty_folder_and_unknown_center(tmp_path, cohort):
    (sentence,) = problems(tmp_path)
    assert "No case was found" in sentence
    (sentence,) = problems(cohort("CHUM-001", "CHUP-001"), center="CHUN")
    assert "centers there: CHUM, CHUP" in sentence and "Did you mean 'CHU" in sentence


def test_all_problems_of_a_center_come_together_and_only_its_own(cohort, disk, caplog):
    root = cohort("CHUM-001", "CHUM-002", "CHUM-003", "HMR-001")
    for number in (1, 2):
        disk.save(root / f"imagesTr/CHUM_00{number}__CT.nii.gz", disk.ct())
    table = root / "hecktor2022_clinical_info_training.csv"
    table.write_text(table.read_text().replace("M,61,80", "M,sixty,80") + "CHUM-003,1,1,1,F,50,60,,,,,,\n")
    (root / "hecktor2022_endpoint_training.csv").write_text(
        "PatientID,Relapse,RFS\nCHUM-001,1,\nCHUM-002,0,-5\nCHUM-003,1,40\nHMR-001,0,10\n"
    )
    with caplog.at_level(logging.WARNING, logger="fedgraft.center"):
        found = problems(root, center="CHUM")
    assert len(found) == 1 and "several files of one kind" in found[0]
    for part in ("1 values of 'age'", "more than once", "values of 'rfs'", "event without a time"):
        assert part in caplog.text  # costs a cell or a patient's outcome, and stops nothing
    assert not any("CHUM-00" in sentence for sentence in found)
    assert "CHUM-002" in caplog.text  # the center's own log names them
    assert [c.patient for c in find_cases(root, center="HMR")] == ["HMR-001"]
    (root / "imagesTr/CHUM_002__CT.nii.gz").unlink()  # one double of three costs that patient only
    assert [c.patient for c in find_cases(root, center="CHUM")] == ["CHUM-002", "CHUM-003"]


@pytest.mark.parametrize(
    ("column", "value"), [("Gender", "x"), ("Weight", "-3"), ("Performance status", "7"), ("Surgery", "maybe")]
)
def test_a_cell_outside_its_coding_counts_as_not_recorded_and_is_told(cohort, caplog, column, value):
    root = cohort("CHUM-001")
    table = root / "hecktor2022_clinical_info_training.csv"
    head, row = table.read_text().strip().split("\n")
    names, cells = head.replace(', 1=+)"', ' 1=+)"').split(","), row.split(",")
    cells[names.index(column)] = value
    table.write_text(f"{head}\n{','.join(cells)}\n")
    [case] = find_cases(root)
    names = {
        "Gender": "gender",
        "Weight": "weight_kg",
        "Performance status": "performance_status",
        "Surgery": "surgery",
    }
    assert names[column] not in case.record and case.record["age"] == 60.0
    assert f"1 values of '{column.lower()}'" in caplog.text and "leave the cell empty" in caplog.text


def test_unreadable_tables_are_problems_and_contradicting_outcomes_cost_the_patient(cohort, caplog):
    root = cohort("CHUM-001")
    (root / "other_endpoint.csv").write_text("PatientID,Relapse,RFS\nCHUM-001,1,7\nnobody,0,1\n")
    (root / "broken.csv").write_bytes(b"\xff\xfe\x00PatientID")
    (root / "empty.csv").write_text("")
    found = problems(root)
    assert len(found) == 2  # two tables unreadable
    assert (
        caplog.text.count("make the tables agree") == 2 and "1 rows of 'other_endpoint.csv' lack an ID" in caplog.text
    )


def test_event_missing_or_time_missing_without_event_is_no_outcome(cohort):
    root = cohort("CHUM-001", "CHUM-002")
    (root / "hecktor2022_endpoint_training.csv").write_text("PatientID,Relapse,RFS\nCHUM-001,0,\nCHUM-002,,12\n")
    assert [(c.days, c.event) for c in find_cases(root)] == [(None, None), (None, None)]


def test_chest_labels_must_be_known_columns(tmp_path, disk):
    disk.save(tmp_path / "imagesTr/CHEST-0001__CT.nii.gz", disk.ct())
    (tmp_path / "chest_labels.csv").write_text("VolumeName,Emphysema\nCHEST-0001,1\n")
    (sentence,) = problems(tmp_path)
    assert "lacks the columns Medical material" in sentence


def test_a_case_without_ct_is_left_out(cohort, disk, caplog):
    root = cohort("CHUM-001")
    disk.save(root / "imagesTr/CHUM-009__PT.nii.gz", np.ones((3, 3, 3), np.float32))
    with caplog.at_level(logging.WARNING, logger="fedgraft.center"):
        assert [c.patient for c in find_cases(root)] == ["CHUM-001"]
    assert "no CT" in caplog.text
