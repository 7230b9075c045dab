"""The two papers' studies: their tables of steps, their figures, and one tiny run to its page."""

from __future__ import annotations

import json

import pytest

from common.config.load import compose_run
from common.config.rules import broken_rules
from common.errors import ConfigError, UnknownName
from simulations.studies import unicon_prognosis, unicon_segmentation
from simulations.studies.cells import prepared
from simulations.studies.options import OPTIONS
from simulations.studies.pemma_fusion import METHODS
from simulations.studies.run import STUDIES, run_study

OURS = ("pemma_fusion", "unicon_prognosis", "unicon_segmentation")
DATA = {
    "phantom": (),
    "sts7": ("data=sts7", "data.root=somewhere"),
    "hecktor": ("data=hecktor", "data.root=somewhere"),
}


@pytest.mark.parametrize(
    ("name", "data"),
    [*((name, "phantom") for name in OURS), ("pemma_fusion_paper", "hecktor"), ("unicon_prognosis_paper", "hecktor"),
     ("unicon_segmentation_paper", "hecktor"), ("pemma_fusion", "sts7")],
)  # fmt: skip
def test_every_study_composes_on_every_cohort_and_breaks_no_rule(name, data):
    run = compose_run([f"study={name}", *DATA[data]])
    assert broken_rules(run) == [] and run.study.kind in STUDIES and type(run.study) is OPTIONS[run.study.kind]
    if name.startswith("unicon"):
        assert run.compare.folds == [0, 1, 2, 3, 4]
    assert run.compare.seeds == [1, 2, 3]


def test_the_steps_are_the_papers_cells():
    steps = compose_run(["study=unicon_prognosis"]).steps
    assert set(steps) == set(unicon_prognosis.PAPER)
    assert {name for name, step in steps.items() if "within" in step.adapter.parts} == {n for n in steps if "_wma" in n}
    assert {name for name, step in steps.items() if step.task.loss == "mtlr"} == {n for n in steps if "mtlr" in n}
    assert steps["text_pma_mtlr"].modalities == ["EHR"] and steps["both_wma_mtlr"].modalities == ["CT", "EHR"]
    ablation = compose_run(["study=unicon_segmentation"]).steps
    assert set(ablation) == {f"{v}_{i}" for v in unicon_segmentation.VARIANTS for i in unicon_segmentation.IMAGES}
    assert ablation["scratch_ct"].adapter.parts["full"].scratch
    assert ablation["wma_ct"].adapter.parts["decoder"].style == "linear"


def test_pemmas_single_modality_stages_freeze_lora_and_the_other_modality():
    steps = compose_run(["study=pemma_fusion"]).steps
    assert {name for name in METHODS if name != "late"} <= set(steps)
    for center, kind in (("hgj", "lora"), ("hmr", "dora")):
        assert steps[f"{center}_pet_{kind}"].train_parts == ["stem_pet", "skip_pet", "alone_pet"]
        assert steps[f"{center}_ct_{kind}"].train_parts == ["alone_ct"]
        assert steps[f"{center}_pet_{kind}"].adapter.parts["within"].dora == (kind == "dora")
    assert steps["mda_lora"].training.draw == {"CT+PET": 0.6, "CT": 0.2, "PET": 0.2}


def test_one_number_sizes_every_step_and_one_step_can_differ():
    run = compose_run(["study=unicon_prognosis", "study.rounds=3", "steps.text_pma_mtlr.rounds=5"])
    assert {step.rounds for name, step in run.steps.items() if name != "text_pma_mtlr"} == {3}
    assert run.steps["text_pma_mtlr"].rounds == 5


def test_arms_are_named_or_refused():
    run = compose_run(["study=unicon_prognosis", "study.arms=[federated,centralised]"])
    with pytest.raises(UnknownName, match=r"Unknown arm 'centralised'.*Did you mean 'centralized'"):
        prepared(run, [])
    with pytest.raises(ConfigError, match=r"study\.arms lacks 'federated'"):
        prepared(compose_run(["study=unicon_prognosis", "study.arms=[centralized]"]), [])


@pytest.mark.slow
def test_a_tiny_study_runs_stops_and_continues(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [
        "study=pemma_fusion", "backbone=tiny", "study.rounds=1", "compare.seeds=[1]", "compare.draws=10", "name=tiny",
        "study.arms=[federated]", "data.root=data", "data.scale=0.01", "study.view.size=[16,16,16]",
        "study.view.window=[16,16,16]", "study.view.spacing_mm=[9,9,9]",
    ]  # fmt: skip
    run = compose_run(overrides)
    page = run_study(run, overrides, folder=tmp_path / "runs" / "tiny", say=lambda line: None)
    assert [row[0] for row in page.tables[0].rows] == list(METHODS.values())
    untouched = next(table for table in page.tables if "single-modality" in table.title)
    for row in untouched.rows:  # what CT teaches leaves PET's answers alone, and the other way round
        quiet = row[3] if row[2] == "PET" else row[4]
        assert str(quiet).startswith("0 of ")
    again = run_study(run, overrides, folder=tmp_path / "runs" / "tiny", say=lambda line: None)
    assert [table.rows for table in again.tables] == [table.rows for table in page.tables]
    assert json.loads((tmp_path / "runs" / "tiny" / "study.json").read_text())["title"] == page.title
