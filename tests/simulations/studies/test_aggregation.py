"""Rows of the aggregation studies: each can be composed, differs from the mean by its overrides only, and is scored."""

from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch

from common.backbones import load_backbone
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.data.batch import Batch
from common.model.adapted import AdaptedModel
from common.tasks import build_task
from simulations.studies import aggregation, attacks
from simulations.studies.trials import Result, Trial, read_result, run_trial, score_row
from tests.helpers.small import SIZES, write_cohort


@pytest.fixture(scope="module")
def rules_run():
    return compose_run(["study=aggregation"])


@pytest.mark.parametrize("row", [*aggregation.RULES, *aggregation.LORA_RULES])
def test_every_rule_can_be_composed_and_breaks_no_rule(rules_run, row):
    trials = aggregation.rows_of(rules_run, "relapse")[row]
    assert [trial.seed for trial in trials] == rules_run.study.seeds
    assert not broken_rules(compose_run(["study=aggregation", *trials[0].overrides]))


def test_rows_of_lora_and_of_local_tensors_are_of_the_steps_that_have_them(rules_run):
    rows = aggregation.rows_of(rules_run, "tumour_ct")
    skip, norms = (aggregation.LOCAL_RULES[part][0] for part in ("decoder", "image"))
    assert set(rows) == {aggregation.UNTRAINED, *aggregation.RULES, skip}
    assert norms in aggregation.rows_of(rules_run, "relapse")


@pytest.mark.parametrize(("step", "part"), [("tumour_ct", "decoder"), ("relapse", "image")])
def test_every_pattern_of_local_tensors_names_some_of_the_step(rules_run, step, part):
    [trial, *_] = aggregation.rows_of(rules_run, step)[aggregation.LOCAL_RULES[part][0]]
    run = compose_run(["study=aggregation", *trial.overrides])
    names = AdaptedModel(load_backbone(run.backbone), run.steps[step], seed=1).state()
    patterns = run.steps[step].federation.local
    assert patterns and all(any(fnmatchcase(name, pattern) for name in names) for pattern in patterns)


def test_every_attack_meets_every_rule_that_its_bound_allows():
    run = compose_run(["study=attacks"])
    rows = attacks.rows_of(run)
    for rule in attacks.RULES:
        for f in (1, 2):
            expected = [] if (rule, f) == ("Bulyan", 2) else sorted(run.study.attacks)
            assert sorted(attack for r, attack, n in rows if (r, n) == (rule, f)) == expected
    [trial] = rows["median", "ipm", 2]
    assert trial.faults[0].centers == run.study.attackers and not rows["median", "none", 0][0].faults
    files = [trial.file for row in rows.values() for trial in row]
    assert len(set(files)) == len(files)


def test_a_trial_federates_scores_patients_and_leaves_one_file(tmp_path, monkeypatch):
    write_cohort(tmp_path / "cohort", SIZES)
    monkeypatch.chdir(tmp_path)
    view = "{spacing_mm: [6,6,6], size: [16,16,16], window: [16,16,16], crop: center}"
    given = (
        "curriculum=smoke", "data=folder", f"data.root={tmp_path / 'cohort'}", "data.split.folds=3",
        "data.split.validation=0.34", "steps.tumour_ct.rounds=1", f"steps.tumour_ct.view={view}",
    )  # fmt: skip
    trained, start = Trial("mean", "tumour_ct", 1), Trial("start", "tumour_ct", 1, trained=False)
    for trial in (trained, start):
        run_trial(given, tmp_path / "study", trial)
    result = read_result(tmp_path / "study", trained)
    assert len(result.patients) == len(read_result(tmp_path / "study", start).patients) == 7
    assert result.server_ms > 0 and result.up > 1e5 and not result.failed and result.quarantined == 0
    assert sorted(p.name for p in (tmp_path / "study" / "trials").iterdir()) == [
        "tumour_ct-mean-seed1.json", "tumour_ct-start-seed1.json",
    ]  # fmt: skip
    assert not any((tmp_path / "study" / "work").iterdir())


def test_a_row_is_compared_over_the_same_patients():
    step = compose_run(["study=aggregation"]).steps["relapse"]

    task = build_task(step.task)

    def result(bins):
        """Six patients who relapse one after another, each with all mass on one bin of the grid."""
        output = torch.full((6, task.outputs), -10.0)
        output[range(6), bins] = 10.0
        target = {"days": torch.arange(100.0, 700.0, 100.0), "event": torch.ones(6)}
        observed = task.observe(output, Batch({"EHR": torch.zeros(6, 1)}, {}, target))
        records = [{name: np.asarray(value).tolist() for name, value in o.items()} for o in observed]
        return Result([{"center": "X", "patient": str(i), "record": record} for i, record in enumerate(records)])

    best, worst = result([1, 2, 3, 4, 5, 6]), result([6, 5, 4, 3, 2, 1])
    found = score_row(step, [best], [worst], metric="c_index", draws=20)
    assert (found.value, found.difference.value) == (1.0, 1.0) and np.isclose(found.difference.low, 1.0)
    assert score_row(step, [Result(failed="void")], [best], metric="c_index", draws=20).failed == "void"
