"""plan --machine counts every center's cases by part of the split, and writes nothing."""

from __future__ import annotations

import pytest

from common.config.load import compose_run
from common.errors import DataError
from simulations.__main__ import main
from simulations.virtual.planning import absent, check_cases, counted
from tests.helpers.small import SIZES, write_cohort


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def settings(root):
    return ["curriculum=smoke", "data=folder", f"data.root={root}"]


def test_every_case_of_every_center_is_counted_once(small_root):
    found = counted(compose_run(settings(small_root)))
    assert {center: sum(parts.values()) for center, parts in found.items()} == dict(SIZES)


def test_the_counts_are_printed(small_root, capsys):
    main(["plan", "--machine", *settings(small_root)])
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"{center}: ") and "train" in line for line in lines) for center in SIZES)


def test_a_trained_step_needs_the_centers_that_it_names(small_root):
    run = compose_run([*settings(small_root), "steps.tumour_ct.centers=[CHUM,NOWHERE]"])
    [problem] = absent(run, counted(run))
    assert problem.startswith("Step 'tumour_ct' names NOWHERE, which has no case under")


def test_a_phantom_that_is_not_drawn_is_said_and_not_drawn(capsys, tmp_path):
    assert main(["plan", "--machine", "curriculum=smoke"]) == 0
    assert "the first run draws the phantom cohort" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told_once(capsys):
    assert main(["plan", "--machine", *settings("lost")]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "lost" in line]
    assert told and all(line.startswith("missing here: ") for line in told)


def test_where_no_center_has_the_cases_to_train_it_is_said_before_anything_starts(small_root):
    few = compose_run([*settings(small_root), "data.minimum_cases=5", "data.minimum_cell=5"])
    with pytest.raises(DataError, match=r"training cases: CHUM 2, .*data.split.folds=5.*data.minimum_cases=1") as error:
        check_cases(few)
    assert "of fold 0 of 3" in str(error.value)


def test_a_center_that_will_not_train_is_named_with_its_cases(small_root):
    said: list[str] = []
    check_cases(
        compose_run([*settings(small_root), "data.minimum_cases=3", "data.split.validation=0.2"]), say=said.append
    )
    [line] = said
    assert line.startswith("training cases: HMR 2,") and line.endswith(
        "fewer than data.minimum_cases=3: declined.cases there"
    )
    check_cases(compose_run(settings(small_root)), say=said.append)
    assert said == [line]


def test_an_outcome_that_cannot_be_used_stops_a_run_with_prognosis_before_anything_starts_and_no_other(tmp_path):
    root = write_cohort(tmp_path / "root", {"CHUM": 3, "HMR": 3})
    table = root / "hecktor2022_endpoint_training.csv"
    table.write_text(table.read_text().replace(",1,", ",2,").replace(",0,", ",1,"))
    own = ["data=folder", f"data.root={root}"]
    check_cases(compose_run(["curriculum=smoke", *own]))
    with pytest.raises(DataError, match="of 'relapse'"):
        check_cases(compose_run(["curriculum=quickstart", *own]))
