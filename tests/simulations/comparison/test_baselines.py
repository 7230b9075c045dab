"""The baselines look where the federation looks, keep what it would keep, and stay fair."""

import numpy as np

from common.backbones import backbone_digest, load_backbone
from common.model.adapted import AdaptedModel
from simulations.comparison.baselines import (
    baseline_order,
    pooled,
    selection_score,
    train_pooled,
)
from tests.helpers.small import forget, open_all, small_run


def trained(small_centers, *, rounds=3, every=1, reset=False, codes=("CHUM",), budget=""):
    forget()
    run = small_run(steps=["tumour_ct"], rounds=rounds)
    run.steps["tumour_ct"].budget = budget
    step, backbone = run.steps["tumour_ct"], load_backbone(run.backbone)
    step.selection.every = every
    state = AdaptedModel(backbone, step, seed=1).state()
    order = baseline_order(run, step, base=backbone_digest(backbone), state=state)
    center = pooled(open_all({code: small_centers[code] for code in codes}))
    return train_pooled(center, order, reset_per_round=reset), state


def test_passes_are_looked_at_as_often_as_rounds(small_centers):
    done, _ = trained(small_centers, rounds=3, every=2)
    assert [value is None for value in done.validation] == [True, False, False] and done.best_pass in (2, 3)


def test_a_pool_trains_on_everyones_cases_as_often_as_there_are_rounds(small_centers):
    alone = [trained(small_centers, rounds=1, codes=(code,))[0].batches for code in ("CHUM", "MDA")]
    both, _ = trained(small_centers, rounds=3, codes=("CHUM", "MDA"))
    assert alone == [1, 1] and both.batches == 6  # two cases each, two a batch


def test_a_budget_in_steps_is_spent_by_a_pool_as_by_one_center_alone(small_centers):
    """A pool of two centers takes two steps a pass, and so half of the passes."""
    alone, pool = (trained(small_centers, budget="4 steps", codes=c)[0] for c in (("CHUM",), ("CHUM", "MDA")))
    assert (alone.batches, len(alone.validation)) == (4, 4) and (pool.batches, len(pool.validation)) == (4, 2)
    assert (alone.cases, pool.cases) == (8, 8)


def test_no_rounds_keep_the_start(small_centers):
    done, start = trained(small_centers, rounds=0)
    assert done.state is start and (done.best_pass, done.batches) == (0, 0)


def test_the_tuned_baseline_is_another_than_the_federations_schedule(small_centers):
    kept, _ = trained(small_centers)
    reset, _ = trained(small_centers, reset=True)
    assert any(not kept.state[name].equal(reset.state[name]) for name in kept.state)


def test_a_validation_value_of_which_less_is_better_is_turned():
    step = small_run(steps=["relapse"]).steps["relapse"]
    step.task.loss = "cox"
    rows = [(4.0, 1, 0.5), (9.0, 0, -0.5), (6.0, 1, 0.1)]
    observed = [
        ({"time": np.array(t), "event": np.array(e), "risk": np.array(r), "survival": np.ones(step.task.bins)}, 2.0)
        for t, e, r in rows
    ]
    values = {}
    for metric in ("loss", "nll", "c_index"):
        step.selection.metric = metric
        values[metric] = selection_score(step, observed, ["CHUM"] * 3).value
    assert values["loss"] == -2.0 and values["nll"] < 0 and values["c_index"] == 1.0
