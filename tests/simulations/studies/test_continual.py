"""Arms of the continual studies: steps that break no rule, matrices read as the field reads them, one tiny run."""

from __future__ import annotations

import copy
import json

import pytest

from common.config.load import compose_run
from simulations.studies.continual import published, vlm
from simulations.studies.continual.arms import FEW, JOINT, SPECIALIZED, TOGETHER, Arrival, at_share, by_center, by_task
from simulations.studies.continual.matrices import cells
from simulations.studies.continual.running import SETTINGS, WHOLE, Outcome, Piece, arm_run
from simulations.studies.continual.yardsticks import (
    Field,
    centers_table,
    five_table,
    measured,
    shares_table,
    yardstick_table,
)
from simulations.studies.options.continual import LEARN
from simulations.studies.run import run_study

STUDIES = ("continual_methods", "continual_methods_table", "continual_vlm", "continual_vlm_table")


@pytest.fixture(scope="module")
def composed():
    return {name: compose_run([f"study={name}"]) for name in STUDIES}


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_of_every_study_is_a_run_that_breaks_no_rule(composed, name):
    run = composed[name]
    for setting in ("centers", "tasks") if run.study.kind == "continual_vlm" else ("centers",):
        for arm in run.study.arms:
            steps = arm_run(run, Piece(setting, arm, 1)).steps
            assert len(steps) == (1 if arm in (JOINT, FEW) else len(run.study.arrivals)), arm


def test_the_papers_size_is_in_slices_with_its_memory_and_its_shots():
    run = compose_run(["study=continual_vlm_paper", "data=hecktor", "data.root=somewhere"])
    assert run.steps[LEARN].task.slices and (run.study.memory, run.study.shots, run.study.batch) == (100, 100, 4)


def test_steps_of_inflora_share_the_rows_alike_and_the_published_table_has_them(composed):
    run = composed["continual_methods_table"]
    assert "inflora" in run.study.arms
    steps = list(arm_run(run, Piece("centers", "inflora", 1)).steps.values())
    [rank] = {step.adapter.parts["within"].rank for step in steps}
    assert {step.methods[0].rank for step in steps} == {rank // len(steps)}
    assert {step.adapter.parts["within"].rule for step in steps} == {"ffa"}
    assert arm_run(run, Piece("centers", "projection", 1)).steps[steps[0].name].adapter.parts["within"].rule == ""


@pytest.mark.parametrize("setting", ["centers", "tasks"])
def test_on_shares_of_what_arrives_each_step_is_tried_beside_the_lineage(composed, setting):
    run = copy.deepcopy(composed["continual_vlm"])
    run.study.shares = [0.1, 0.25]
    arrivals = SETTINGS[setting](run.study)
    for arm, after in {"inflora": arrivals[0].name, "rehearsal": arrivals[0].name, SPECIALIZED: None}.items():
        steps = arm_run(run, Piece(setting, arm, 1)).steps
        assert len(steps) == 3 * len(arrivals)
        tried = steps[at_share(arrivals[1], 0.25)]
        assert (tried.starts_from, tried.writes, tried.centers) == (after, None, list(arrivals[1].centers))
        assert [(spec.kind, spec.fraction) for spec in tried.methods] == [("few_shot", 0.25)]
        assert list(steps).index(tried.name) < list(steps).index(arrivals[1].name)


def test_the_table_of_shares_has_what_a_step_starts_with_and_ends_with():
    arrivals = [Arrival("a", ("CHUM",)), Arrival("b", ("MDA",))]
    rows = {("a", "a"): (0.8, 0.2), ("b_at_10", "b_at_10"): (0.1, 0.4), ("b", "b"): (0.6, 0.7)}
    field = Field({Piece("centers", "lwf", 1): outcome(rows)}, "centers", arrivals, "dsc")
    [table] = shares_table("", ["lwf"], field, [0.1])
    assert (table.columns, table.rows) == (["arm", "0 %", "10 %", "100 %"], [["lwf", "20.0", "40.0", "70.0"]])
    assert shares_table("", ["lwf"], field, []) == []


def test_who_takes_part_in_a_step_is_what_its_arm_says(composed):
    run = composed["continual_vlm"]
    [first, second, third] = by_center(run.study)
    sequential, rehearsal = (arm_run(run, Piece("centers", arm, 1)).steps for arm in ("sequential", "rehearsal"))
    assert [s.centers for s in sequential.values()] == [list(a.centers) for a in (first, second, third)]
    assert {s.writes for s in sequential.values()} == {"shared"}
    assert rehearsal[third.name].centers == [*first.centers, *second.centers, *third.centers]
    [memory] = rehearsal[third.name].methods
    assert memory.at == [*first.centers, *second.centers] and memory.cases == run.study.memory
    alone = arm_run(run, Piece("centers", SPECIALIZED, 1)).steps
    assert {s.writes for s in alone.values()} == {None}
    [few] = arm_run(run, Piece("centers", FEW, 1)).steps[TOGETHER].methods
    assert (few.kind, few.cases) == ("few_shot", run.study.shots)


def test_a_task_is_outlined_where_it_was_learned_and_rehearsed_with_its_own_words(composed):
    run = composed["continual_vlm"]
    arrivals = by_task(run.study)
    assert [a.structure for a in arrivals] == run.study.tasks
    steps = arm_run(run, Piece("tasks", "rehearsal", 1)).steps
    last = steps[arrivals[-1].name]
    assert last.task.structures == run.study.tasks
    assert last.task.outlined == {a.centers[0]: [a.structure] for a in arrivals}
    plain = arm_run(run, Piece("tasks", "sequential", 1)).steps[arrivals[-1].name]
    assert plain.task.structures == ["brain"] and plain.task.phrases == {}


def test_the_printed_rows_average_to_what_the_paper_says():
    for columns, table in ((published.DOMAINS, published.BY_CENTER), (published.TASKS, published.BY_TASK)):
        for name, row in table.items():
            assert len(row) == len(columns)
            if name != "specialized":
                assert sum(row[:-1]) / (len(row) - 1) == pytest.approx(row[-1], abs=0.11), name
    assert all(len(row) == len(published.TASKS_CROSSED) for row in published.CROSSED.values())


def test_a_matrix_with_a_hole_that_matters_has_no_yardsticks():
    golden = [[0.80, 0.20, 0.10], [0.60, 0.70, 0.30], [0.75, 0.40, 0.90]]
    found = measured(golden, before=[0.05] * 3, dedicated=[0.80, 0.75, 0.88])
    assert found.forgetting == pytest.approx(0.175) and found.plasticity == pytest.approx(0.985354, abs=1e-6)
    assert measured([[None, 0.2], [0.1, 0.3]], before=[None, None], dedicated=None) is None
    assert cells([[0.5, None], [0.7, None]]) == ["60.0 ± 14.1", None, "60.0 ± 14.1"]


def outcome(rows, *, costs=None):
    """Scores at two centers after each step of a run, as (step, task) -> scores."""
    found = [
        {"step": step, "task": task, "metric": "dsc", "center": center, "value": value}
        for (step, task), values in rows.items()
        for center, value in zip(("CHUM", "MDA"), values, strict=True)
    ]
    start = [row | {"step": "start", "value": 0.05} for row in found]
    return Outcome(start, found, costs or {WHOLE: {"seconds": 1.0, "frozen": 1000}})


def test_tables_of_a_golden_study():
    """Two centers, one after the other: 80 falls to 60 at the first; own adapters score 80 and 50, the joint one 90."""
    costs = {WHOLE: {"seconds": 1.0, "frozen": 1000}, "b": {"numbers": 50, "replayed": 5.0, "cases": 20.0}}
    outcomes = {
        Piece("centers", "dedicated", 1): outcome({("a", "a"): (0.8, 0.1), ("b", "b"): (0.1, 0.5)}),
        Piece("centers", "joint", 1): outcome({("together", "together"): (0.9, 0.9)}),
        Piece("centers", "rehearsal", 1): outcome({("a", "a"): (0.8, 0.2), ("b", "b"): (0.6, 0.7)}, costs=costs),
    }
    arms = [piece.arm for piece in outcomes]
    field = Field(outcomes, "centers", [Arrival("a", ("CHUM",)), Arrival("b", ("MDA",))], "dsc")
    [row] = yardstick_table("", arms, field).rows
    assert row == ["rehearsal", "65.0", "-20.0", "15.0", "20.0", "-10.0", "15.0", "120.0", "83.3", "25.0"]
    [row] = five_table("", arms, field).rows
    assert row == ["rehearsal", "75.0", "120.0", "20.0", "5.00", "25.0"]
    assert centers_table("", arms, field).rows == [
        ["joint", "CHUM", "90.0", "0.0", "0 of 2"],
        ["rehearsal", "CHUM", "60.0", "10.0", "1 of 2"],
    ]


@pytest.mark.slow
def test_the_vision_language_study_runs_to_its_page_and_is_not_run_again(tmp_path):
    overrides = [
        "study=continual_vlm", "backbone=tiny", f"out={tmp_path}", f"data.root={tmp_path}/data", "data.scale=0.03",
        "study.rounds=1", "study.epochs=1", "study.arrivals=[[CHUM],[MDA]]", "study.tasks=[GTVp,brain]",
        "runtime.workers=1", "study.view.size=[16,16,16]",
    ]  # fmt: skip
    run = compose_run(overrides)
    page = run_study(run, overrides, folder=tmp_path / "page")
    titles = [table.title for table in page.tables]
    assert titles[0] == "Centers arrive one by one: the last model"
    assert [row[0] for row in page.tables[0].rows] == [vlm.ZERO_SHOT, *run.study.arms]
    assert (tmp_path / "page" / "report.html").exists()
    json.loads((tmp_path / "page" / "study.json").read_text())
    said: list[str] = []
    again = run_study(run, overrides, folder=tmp_path / "page", say=said.append)
    assert said[0] == "0 of 10 arms to run" and again.tables == page.tables


@pytest.mark.slow
def test_the_study_of_methods_runs_to_its_page(tmp_path):
    overrides = [
        "study=continual_methods", "backbone=tiny", f"out={tmp_path}", f"data.root={tmp_path}/data", "data.scale=0.03",
        "study.rounds=1", "study.epochs=1", "study.arrivals=[[CHUM],[MDA]]", "runtime.workers=1",
        "study.arms=[dedicated,joint,sequential,rehearsal,ewc,inflora]",
    ]  # fmt: skip
    page = run_study(compose_run(overrides), overrides, folder=tmp_path / "page")
    assert [row[0] for row in page.tables[0].rows] == ["sequential", "rehearsal", "ewc", "inflora"]
    assert all(row[1] is not None for row in page.tables[0].rows)
