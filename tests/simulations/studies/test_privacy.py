"""study=privacy: rows that any hospital would be asked, and noised fits on a table."""

import math
from pathlib import Path

import numpy as np
import pytest

from common.config.load import compose_run
from common.config.rules import broken_rules
from common.exact.columns import Rows
from common.exact.objectives import GRADIENT, Hazard
from simulations.studies.page import Page
from simulations.studies.privacy.rows import FREE, level_name, rows_of
from simulations.studies.privacy.table import CLIP, _on_grid, bounded, noised_fit, table_part
from simulations.survival.cohort import Cohort, Learning, Task

STUDY = "study=privacy"


@pytest.fixture(scope="module")
def run():
    return compose_run([STUDY])


def test_each_adapter_stands_without_privacy_and_at_each_epsilon(run):
    rows = rows_of(run, "relapse")
    adapters = ["LoRA", "FFA-LoRA", "FedSVD", "Fed-SB", "head alone"]
    assert list(rows) == [(adapter, epsilon) for adapter in adapters for epsilon in (FREE, 20.0, 8.0, 3.0)]
    assert level_name(FREE) == "none" and level_name(8.0) == "epsilon 8"
    assert next(adapter for adapter, _ in rows_of(run, "tumour_ct")) == "as declared"


@pytest.mark.parametrize(
    ("step", "adapter"), [("relapse", "head alone"), ("relapse", "Fed-SB"), ("tumour_ct", "as declared")]
)
@pytest.mark.parametrize("epsilon", [FREE, 8.0])
def test_every_row_is_a_run_without_a_broken_rule(run, step, adapter, epsilon):
    (trial,) = rows_of(run, step)[adapter, epsilon]
    found = compose_run([STUDY, *trial.overrides])
    found.steps = {step: found.steps[step]}
    assert not broken_rules(found)
    assert (found.steps[step].privacy is None) == math.isinf(epsilon) and found.steps[step].selection.keep in (
        "",
        "last",
    )


def task_of(cohort):
    return Task(cohort.centers, cohort.rows, cohort.layout, Learning(penalties=[1.0]), 1.0)


@pytest.fixture(scope="module")
def cohort():
    """Two centers whose patients relapse early where their HPV status is negative."""
    from common.data.records import record_layout

    layout, rng, rows = record_layout(["age", "hpv", "t_stage"]), np.random.default_rng(0), {}
    for center, size in (("A", 40), ("B", 25)):
        values = np.stack([rng.integers(40, 80, size), rng.integers(0, 2, size), rng.integers(0, 5, size)], axis=1)
        days = rng.integers(30, 400, size) + 900 * values[:, 1]
        rows[center] = Rows(
            values.astype(float), np.ones((size, 3)), np.stack([days, rng.random(size) < 0.7], axis=1).astype(float)
        )
    return bounded(Cohort({}, rows, layout))


def test_rows_are_bounded(cohort):
    for rows in cohort.rows.values():
        x = np.concatenate([rows.values, rows.flags], axis=1)
        assert np.linalg.norm(x, axis=1).max() <= CLIP * (1 + 1e-9)


def test_without_noise_the_fit_settles_and_finds_what_matters(run, cohort):
    found = noised_fit(task_of(cohort), run=run, epsilon=FREE)
    (model,) = {id(one): one for one in found.values()}.values()
    assert sorted(found) == ["A", "B"] and model.weight[0, 1] < -0.2  # HPV-positive patients relapse later
    x, target = (
        np.concatenate(part)
        for part in zip(*(_on_grid(cohort.layout, r, 4, 1825) for r in cohort.rows.values()), strict=True)
    )
    objective = Hazard(4)
    beta = np.zeros(objective.shape(x.shape[1]))
    assert np.isfinite(objective.sums(x, target, beta)[GRADIENT]).all()


def test_noise_is_that_of_the_fold_and_drowns_a_small_epsilon(run, cohort):
    weights = [noised_fit(task_of(cohort), run=run, epsilon=e)["A"].weight for e in (8.0, 8.0, 3.0, FREE)]
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])
    assert np.abs(weights[0] - weights[3]).max() > 0


HN4 = Path("../shared/data/hn4/hn4_public.csv")


@pytest.mark.skipif(not HN4.exists(), reason="the table of four hospitals is not here")
def test_a_table_of_hospitals_gives_a_row_for_each_epsilon():
    given = [f"study.table={HN4}", "study.mapping=configs/mapping/hn4.yaml", "study.repeats=1", "study.folds=2"]
    found = compose_run([STUDY, *given, "study.epsilons=[8]"])
    page = Page("privacy", "")
    table_part(page, found, lambda line: None)
    (table,) = page.tables
    assert [row[0] for row in table.rows] == ["none", "epsilon 8"] and table.rows[0][2] == ""
    assert all(str(row[1]).startswith("0.") for row in table.rows) and "148 patients" in table.note
