"""What a step leaves open is read from the folder and becomes part of the command line."""

from __future__ import annotations

import pytest

from common.config.load import compose_run
from common.config.rules import broken_rules
from common.errors import ConfigError, DataError
from simulations.virtual.own_data import choose, epochs_for, nesting, settled, spacing_for
from tests.helpers.layouts import in_brats, in_hecktor, in_nnunet

REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "edge": (3,)}


def settle(root, *more: str):
    said: list[str] = []
    return compose_run(settled(["curriculum=own", f"data.root={root}", *more], say=said.append)), said


def test_the_folder_answers_what_the_step_leaves_open(tmp_path):
    root = in_nnunet(in_hecktor(tmp_path / "hecktor", {"CHUM": 3, "MDA": 3}), tmp_path / "nnunet")
    run, said = settle(root)
    step = run.steps["own"]
    assert broken_rules(run) == []
    assert (step.modalities, step.task.structures, step.view.spacing_mm) == (["CT", "PET"], ["GTVp", "GTVn"], [6.0] * 3)
    assert sorted(step.adapter.parts) == ["decoder", "skip_pet", "stem_pet"]
    assert step.adapter.parts["stem_pet"].init == "zero"
    assert said[0].startswith(f"{root}: nnunet layout: 6 cases of 2 centers") and said[1].startswith("chosen: ")


def test_what_the_command_line_says_stays(tmp_path):
    root = in_nnunet(in_hecktor(tmp_path / "hecktor", {"CHUM": 3, "MDA": 3}), tmp_path / "nnunet")
    given = ("steps.own.modalities=[CT]", "steps.own.task.structures=[GTVn]", "steps.own.view.spacing_mm=[3,3,3]",
             "steps.own.training.epochs=2")  # fmt: skip
    assert settled(["curriculum=own", f"data.root={root}", *given]) == ("curriculum=own", f"data.root={root}", *given)


def test_images_without_a_ct_start_from_a_copy_of_its_embedding(tmp_path):
    root = in_brats(in_hecktor(tmp_path / "hecktor", {"CHUM": 3, "MDA": 3}), tmp_path / "brats")
    run, _ = settle(root)
    step = run.steps["own"]
    assert broken_rules(run) == [] and step.modalities == ["FLAIR", "T1"]
    assert {name: part.init for name, part in step.adapter.parts.items() if name.startswith("stem")} == {
        "stem_flair": "zero", "stem_t1": "copy",
    }  # fmt: skip
    assert step.task.structures == ["necrosis", "edema", "enhancing"] and step.task.within == {}
    run, _ = settle(root, "steps.own.task.structures=[whole_tumor,tumor_core]")
    assert run.steps["own"].task.within == {"whole_tumor": ["tumor_core"]}


def test_one_center_is_said_and_no_labels_are_refused(tmp_path):
    root = in_nnunet(in_hecktor(tmp_path / "hecktor", {"MDA": 3}), tmp_path / "nnunet")
    assert any("nothing to federate" in line for line in settle(root)[1])
    for path in (root / "labelsTr").glob("*"):
        path.unlink()
    with pytest.raises(DataError, match="fits the label pattern"):
        settle(root)
    with pytest.raises(ConfigError, match=r"name it: data=folder data.root="):
        settled(["curriculum=own"])


def test_a_plan_says_that_the_folder_answers_and_a_simulation_asks_it():
    run = compose_run(["curriculum=own", "data.root=somewhere"])
    assert broken_rules(run, may_be_open=True) == []
    problems = broken_rules(run)
    assert [
        problem.split(" are left to the data folder, which python -m simulations reads; ")[0] for problem in problems
    ] == ["Step 'own': modalities, task.structures, view.spacing_mm, training.epochs"]


def test_structures_that_others_make_up_are_not_chosen():
    assert choose({"necrosis": (1,), "edema": (2,), "whole": (1, 2)}) == ["necrosis", "edema"]
    assert choose(REGIONS) == list(REGIONS)
    assert nesting(REGIONS) == {"whole": ["core", "edge"], "core": ["edge"]}


def test_the_spacing_is_the_images_own_or_what_48_voxels_cover():
    assert spacing_for([96, 96, 96], [6, 6, 6]) == 6.0
    assert spacing_for([155, 240, 240], [1, 1, 1]) == 5.0
    assert spacing_for([300, 500, 500], [3.27, 0.98, 0.98]) == 10.5


def test_few_cases_are_passed_more_often_so_that_the_middle_center_takes_300_steps():
    step = compose_run(["curriculum=own", "data.root=somewhere"]).steps["own"]
    assert (step.rounds, step.training.batch) == (20, 2)
    assert epochs_for([5, 5, 5], step) == 5  # 3 batches x 20 rounds x 5 passes
    assert epochs_for([2, 30, 100], step) == 1  # 15 x 20 x 1
    assert epochs_for([1, 1], step) == 10 and epochs_for([400], step) == 1 and epochs_for([], step) == 10
