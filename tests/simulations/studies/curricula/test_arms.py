"""Studies whose arms are whole curricula: what an arm is made of, its figures, and one tiny study that is continued."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from common.config.load import compose_run
from common.config.rules import broken_rules
from common.errors import ConfigError, UnknownName
from simulations.studies.curricula.arms import Arms, Found, Part, arm_run, plugins_of, run_arms
from simulations.studies.curricula.medcoss import ORDERINGS
from simulations.studies.options.curricula import ARMS, UNSEEN
from simulations.studies.run import run_study


@pytest.mark.parametrize("kind", ["medcoss", "medseqft"])
def test_every_arm_breaks_no_rule_and_answers_every_task(kind):
    run = compose_run([f"study={kind}_published"])
    assert set(run.study.arms) == set(ARMS[kind]) and broken_rules(run) == []
    assert len({frozenset(arm.scored) for arm in ARMS[kind].values()}) == 1
    for name, arm in ARMS[kind].items():
        own = arm_run(arm, run, ())
        assert broken_rules(own) == [], name
        assert set(arm.scored.values()) <= set(own.steps) and own.data == run.data and own.backbone == run.backbone
        assert {tuple(step.view.size) for step in own.steps.values()} == {tuple(run.study.view.size)}


@pytest.mark.parametrize("name", ["medcoss", "medcoss_paper", "medseqft", "medseqft_paper"])
def test_other_sizes_compose(name):
    run = compose_run([f"study={name}"])
    own = arm_run(ARMS[run.study.kind][run.study.arms[-1]], run, ())
    assert broken_rules(run) == broken_rules(own) == [] and set(run.study.arms) <= set(ARMS[run.study.kind])
    assert (own.runtime.device, own.backbone.config) == (("cuda", "vit_b") if "paper" in name else ("cpu", "tiny"))


def test_orderings_are_of_arms_that_there_are():
    assert {arm for _, _, a, b, _ in ORDERINGS for arm in (a, b)} <= set(ARMS["medcoss"])


def test_unseen_tasks_begin_where_the_sequence_ended():
    run = compose_run(["study=medseqft_published"])
    ends = {"parallel": "original", "joint": "all_fit", "sequential": "node_fit", "medseqft": "node", "scratch": None}
    for arm, end in ends.items():
        steps = arm_run(ARMS["medseqft"][arm], run, ()).steps
        assert [steps[name].stands_on for name in UNSEEN] == [end] * 2
        assert not any(structure in step.task.structures for name, step in steps.items() if name not in UNSEEN
                       and step.task.kind == "segmentation" for structure in UNSEEN.values())  # fmt: skip


def test_what_no_arm_can_be_given_is_refused():
    run = compose_run(["study=medcoss"])
    with pytest.raises(ConfigError, match=r"steps\.tumour_ct\.rounds=2: .*study\.task_rounds"):
        plugins_of(["steps.tumour_ct.rounds=2"])
    assert plugins_of(["seed=2", "plugins=[one.py]"]) == ("plugins=[one.py]",)
    run.study.arms = ["medcos"]
    with pytest.raises(UnknownName, match=r"Did you mean 'medcoss'\? \(study\.arms\)"):
        run_arms(run, [], print)
    run.study.arms = []
    with pytest.raises(ConfigError, match=r"study\.arms, study\.seeds and study\.folds"):
        run_arms(run, [], print)


def rows(hits: dict[str, float], center: str = "CHUM") -> list[dict]:
    """One structure, ten voxels drawn and ten predicted in each patient."""
    record = {"predicted": [10.0], "truth": [10.0]}
    return [
        {"center": center, "patient": patient, "record": {**record, "intersection": [hit]}}
        for patient, hit in hits.items()
    ]


def arms_of(found: dict[str, list[Found]]) -> Arms:
    run = compose_run(["study=medseqft"])
    chosen = {arm: ARMS["medseqft"][arm] for arm in found}
    steps = {arm: arm_run(one, run, ()).steps for arm, one in chosen.items()}
    parts = {arm: {Part(arm, 0, seed): one for seed, one in enumerate(each, start=1)} for arm, each in found.items()}
    return Arms(run, chosen, steps, parts)


def test_scores_are_of_patients_over_seeds_and_differences_of_those_that_both_scored():
    full = [Found({"gtvp_fit": rows({f"p{n}": 8.0 for n in range(6)})}),
            Found({"gtvp_fit": rows({f"p{n}": 6.0 for n in range(6)})})]  # fmt: skip
    other = [Found({"gtvp_fit": rows({f"p{n}": 5.0 for n in range(5)})})] * 2
    arms = arms_of({"medseqft": full, "sequential": other})
    assert arms.score("medseqft", "gtvp", "dsc_agg_GTVp").value == pytest.approx(0.7)
    found = arms.difference("medseqft", "sequential", "gtvp", "dsc_agg_GTVp")
    assert found.value == pytest.approx(0.2) and found.n == 5
    assert found.low == pytest.approx(0.2) and found.high == pytest.approx(0.2)  # no patient differs from another
    assert arms.mean("medseqft", lambda one: one.vault) == 0 and arms.mean("medseqft", lambda one: None) is None


@pytest.mark.slow
def test_a_tiny_study_runs_stops_and_continues(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [
        "study=medcoss", "name=tiny", "study.arms=[sequential,medcoss]", "study.stage_rounds=1", "study.task_rounds=1",
        "study.draws=10", "study.view.size=[16,16,16]", "study.view.window=[16,16,16]", "study.view.spacing_mm=[9,9,9]",
        "data.root=data", "data.scale=0.03",
    ]  # fmt: skip
    run, folder = compose_run(overrides), tmp_path / "runs" / "tiny"
    page = run_study(copy.deepcopy(run), overrides, folder=folder, say=lambda line: None)
    assert [row[0] for row in page.tables[0].rows] == [ARMS["medcoss"][arm].said for arm in run.study.arms]
    kept = next(table for table in page.tables if "still knows" in table.title)
    assert [row[1] for row in kept.rows] == ["reports", "slices", "ct"] * 2
    assert all(np.isfinite(row[3]) and 0 <= row[3] <= 1 for row in kept.rows)
    Path(folder / "found" / "medcoss-fold0-seed1.json").unlink()  # as if it had been stopped while it was scored
    again = run_study(run, overrides, folder=folder, say=lambda line: None)
    unchanged = [table.rows for table in page.tables if table.title != "What it costs"]
    assert [table.rows for table in again.tables if table.title != "What it costs"] == unchanged
    assert json.loads((folder / "study.json").read_text())["title"] == page.title
