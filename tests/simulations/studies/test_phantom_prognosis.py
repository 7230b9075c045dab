"""study=phantom_prognosis: every arm on the same patients, beside the ceiling; a stopped study goes on."""

from __future__ import annotations

import numpy as np
import pytest

from common.config.load import compose_run
from common.config.rules import broken_rules
from common.metrics import concordance_index, harrell_counts
from simulations.comparison.names import CENTRALIZED, FEDERATED, LOCAL, RANDOM
from simulations.studies.phantom_prognosis.cells import NEWTON, cells
from simulations.studies.phantom_prognosis.cohort import Cohort
from simulations.studies.phantom_prognosis.page import Indices
from simulations.studies.run import run_study


def cohort(n=60):
    generator = np.random.default_rng(0)
    risk = generator.normal(size=n)
    time, event = generator.exponential(np.exp(-risk)), (generator.random(n) < 0.7).astype(float)
    centers = np.repeat(["A", "B"], [20, n - 20])
    return Cohort([f"P{i}" for i in range(n)], centers, np.arange(n) % 3, time, event), risk


def test_the_default_table_is_the_issues():
    run = compose_run(["study=phantom_prognosis"])
    assert broken_rules(run) == []
    every = list(cells(run.study))
    assert len([c for c in every if not c.random]) == 3 * 3 * 5 * 3
    assert {c.input for c in every if c.random} == {"image", "image+text"} and len({c.name for c in every}) == len(
        every
    )


def test_pairs_stay_within_a_center_and_fold():
    people, risk = cohort()
    resampled = Indices(people, draws=20)
    counts = sum(
        np.array(harrell_counts(people.time[g], people.event[g], risk[g]))
        for c in ("A", "B")
        for f in range(3)
        for g in [(people.centers == c) & (people.fold == f)]
    )
    assert resampled.index(risk).value == pytest.approx(concordance_index(*counts))
    assert resampled.index(risk, across=True).value != resampled.index(risk).value
    one = people.centers == "A"
    assert resampled.index(risk, center="A").value == pytest.approx(
        Indices(Cohort([], people.centers[one], people.fold[one], people.time[one], people.event[one]), draws=2)
        .index(risk[one]).value
    )  # fmt: skip


def test_a_difference_is_paired_and_seeds_are_averaged():
    people, risk = cohort()
    resampled = Indices(people, draws=50)
    one, other = resampled.index(risk), resampled.index(np.stack([risk, -risk]))
    assert other.value == pytest.approx(0.5) and np.allclose(other.drawn, 0.5)
    gap = one.minus(other)
    assert gap.value == pytest.approx(one.value - 0.5) and np.allclose(gap.drawn, one.drawn - 0.5)
    assert one.minus(one).estimate().interval == (0.0, 0.0)


@pytest.mark.slow
def test_a_small_study_runs_and_goes_on(tmp_path):
    overrides = [
        "study=phantom_prognosis", "backbone=tiny", "name=pp", f"out={tmp_path}", "data.scale=0.08",
        f"data.root={tmp_path / 'data'}",
        "study.inputs=[image+text]", "study.losses=[deephit]", "study.folds=2", "study.seeds=[1]", "study.rounds=2",
        "study.draws=50",
    ]  # fmt: skip
    run = compose_run(overrides)
    said: list[str] = []
    page = run_study(run, overrides, folder=tmp_path / "pp", say=said.append)
    assert "4 of 4 cells to train" in said
    for arm in (FEDERATED, CENTRALIZED, LOCAL, RANDOM):
        assert page.figures[f"image+text|deephit|{arm}"][0] is not None
    assert page.figures[f"image+text|cox|{NEWTON}"][0] is not None
    assert 0.5 < page.figures["true hazard"][0] <= 1
    again = run_study(run, overrides, folder=tmp_path / "pp", say=said.append)
    assert "0 of 4 cells to train" in said and again.figures == page.figures
    assert (tmp_path / "pp" / "report.html").read_text().count("<img") == 1
