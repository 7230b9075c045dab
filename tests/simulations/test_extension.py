"""Studies and faults belong to simulations: composing works without them, and shipped studies resolve as they did."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra.core.config_store import ConfigStore

from common.config.load import CONFIGS, compose_run, forget
from common.config.rules import broken_rules
from simulations.studies.options import OPTIONS, STAGES
from simulations.studies.run import STUDIES
from tests.helpers.resolved import digest, recorded

RECORDED = recorded()
ALONE = """
import sys
from common.config.load import compose_run
from common.errors import ConfigError
assert len(compose_run(["curriculum=smoke"]).steps) == 2
for override in ("study=hn4", "+faults.a={kind: nan}"):
    try:
        compose_run(["curriculum=smoke", override])
    except ConfigError as error:
        print(error)
assert not any(name.split(".")[0] == "simulations" for name in sys.modules)
"""


def test_composing_works_without_simulations_and_says_whose_studies_and_faults_are():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, cwd=CONFIGS.parent, check=True)
    study, fault = done.stdout.splitlines()
    assert study.endswith("and run it with python -m simulations compare study=hn4.")
    assert fault.startswith("faults has a; faults happen in simulations only")


def test_a_study_is_found_after_a_run_without_one(monkeypatch):
    """A study's groups come into Hydra's store when the first is asked for, in a process that has composed before."""
    monkeypatch.delitem(ConfigStore.instance().repo.get("schema", {}), "study", raising=False)
    forget()
    assert compose_run(["curriculum=smoke"]).study is None
    assert compose_run(["study=attacks"]).study is not None


def test_every_study_has_its_options_and_generated_steps_are_of_known_studies():
    assert set(OPTIONS) == set(STUDIES) and set(STAGES) < set(STUDIES)
    assert all(options().kind == kind for kind, options in OPTIONS.items())


@pytest.mark.parametrize("command", sorted(c for c in RECORDED["digests"] if c.startswith("study=")))
def test_a_study_resolves_to_the_same_run(command):
    assert digest(compose_run([command]), RECORDED["options"]) == RECORDED["digests"][command]


def test_a_studys_view_sizes_its_steps_in_every_option():
    run = compose_run(["study=unicon_segmentation", "study.view.pet=suv", "study.view.ct_hu=[-200,250]"])
    assert {step.view.pet for step in run.steps.values()} == {"suv"}
    assert run.steps["pma_ct"].view.ct_hu == [-200.0, 250.0]


def test_a_folder_for_runs_that_cannot_be_made_is_a_broken_rule_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    there = compose_run(["curriculum=smoke", f"out={tmp_path / 'new' / 'runs'}"])
    assert broken_rules(there) == [] and [path.name for path in tmp_path.iterdir()] == ["file"]
    [problem] = broken_rules(compose_run(["curriculum=smoke", f"out={tmp_path / 'file' / 'runs'}"]))
    assert problem.startswith(f"out is '{tmp_path}/file/runs', and {tmp_path}/file is a file; name a folder")
    [problem] = broken_rules(compose_run(["curriculum=smoke", "out=/proc/runs"]))
    assert problem.startswith("out is '/proc/runs', and in /proc no folder can be made")
