"""plan --machine counts every center's cases by part of the split, and writes nothing."""

from __future__ import annotations

import pytest

from common.config.load import compose_run
from simulations.__main__ import main
from simulations.virtual.planning import absent, counted
from tests.helpers.small import SIZES


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
