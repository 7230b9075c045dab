"""One concordance: whoever counts pairs of patients counts them as HECKTOR does, a missing risk as a tie."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config.task import PrognosisTask
from common.metrics import bootstrap_concordance, bootstrap_pairs, bootstrap_weights, concordance_index, harrell_counts
from common.metrics.resampling import pairs_of
from common.tasks import build_task, pooled_metrics

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT.parent / "shared" / "golden" / "surv.json"
THREE = ([5.0, 8, 12], [1.0, 1, 0], [float("nan"), 2.0, 1.0])  # DEFECTS A13: two pairs of three tie


def by_counts(time, event, risk):
    return concordance_index(*harrell_counts(time, event, risk))


def by_bootstrap(time, event, risk):
    weights = bootstrap_weights([""] * len(time), draws=2)
    return bootstrap_concordance(time, event, risk, groups=[""] * len(time), weights=weights).value


def by_studies(time, event, risk):
    """As `simulations.survival.evaluation` counts folds of a study."""
    return bootstrap_pairs([(pairs_of(time, event, risk), np.ones((1, len(time))))], draws=1).value


def by_task(time, event, risk):
    task = build_task(PrognosisTask(loss="cox", bins=3, horizon_days=20))
    records = [
        {"time": t, "event": e, "risk": r, "survival": np.ones(3)} for t, e, r in zip(time, event, risk, strict=True)
    ]
    return pooled_metrics(task, [{k: np.asarray(v) for k, v in record.items()} for record in records])["c_index"]


ROUTES = [by_counts, by_bootstrap, by_studies, by_task]


@pytest.mark.parametrize("route", ROUTES)
def test_a_missing_risk_ties_with_everybody(route):
    assert route(*map(np.array, THREE)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_hecktors_value(route):
    if not GOLDEN.is_file():
        pytest.skip(f"golden values are not at {GOLDEN}")
    golden = json.loads(GOLDEN.read_text())
    time, event, risk = (np.array(golden["inputs"]["A"][name], float) for name in ("T", "E", "risk"))
    assert route(time, event, risk) == pytest.approx(golden["A_hecktor_rule"][0], abs=1e-12)
    risk[3] = np.nan
    assert route(time, event, risk) == pytest.approx(golden["A_hecktor_rule_nan_idx3"][0], abs=1e-12)


def test_a_model_without_an_answer_is_no_better_than_guessing():
    task = build_task(PrognosisTask(loss="hazard", bins=3, horizon_days=20))
    risk = task.risk(torch.full((3, 3), torch.nan)).numpy()
    assert by_counts(np.array(THREE[0]), np.array(THREE[1]), risk) == 0.5


def test_no_other_concordance_is_used():
    """Libraries count ties and missing risks by rules of their own."""
    sources = [path for name in ("client", "common", "server", "simulations") for path in (ROOT / name).rglob("*.py")]
    found = [p.name for p in sources if re.search(r"(lifelines|sksurv)[\w.]* import [^\n]*concordance", p.read_text())]
    assert found == []
