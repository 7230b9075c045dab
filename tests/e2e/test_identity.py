"""Federation changes nothing but the place: one center equals central training, seeds decide, workers do not."""

import pytest
import torch

from server.learning.checkpoints import load_checkpoint
from server.learning.start import starting_state
from simulations.comparison import baselines
from simulations.comparison.baselines import baseline_order, pooled, train_pooled
from tests.helpers.small import adapters, federate, forget, open_all, small_run


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "steps",
    [["tumour_ct"], ["relapse"], ["tumour_ct", "tumour_ctpet"]],
    ids=["decoder on kept features", "LoRA with dropout and augmentation", "PET from an earlier step"],
)
def test_one_center_federated_is_central_training_bit_for_bit(tmp_path, small_centers, steps, monkeypatch):
    files = {"CHUM": small_centers["CHUM"]}
    run = small_run(centers=["CHUM"], steps=steps)
    leader = federate(run, tmp_path, files)
    finished = leader.ledger.events("step_finished")[-1]
    step = run.steps[finished["step"]]

    forget()
    start = starting_state(leader, step)
    order = baseline_order(run, step, base=leader.base, state=start)
    central = train_pooled(pooled(open_all(files)), order, reset_per_round=True)

    federated = leader.bank.get(finished["key"])
    assert central.best_pass == finished["kept_round"] and equal(central.state, federated)
    rounds = leader.ledger.events("round_finished", step=step.name)
    assert central.validation == [event["validation"]["pooled"] for event in rounds]

    # The start may be the better one: here not.
    monkeypatch.setattr(baselines, "best", lambda scores: len(scores) - 1)
    last = train_pooled(pooled(open_all(files)), order, reset_per_round=True)
    assert equal(last.state, load_checkpoint(leader.folder, step.name, rounds[-1])) and not equal(start, last.state)


def test_one_center_that_keeps_its_moments_is_central_training_that_keeps_them(tmp_path, small_centers):
    files = {"CHUM": small_centers["CHUM"]}
    run = small_run(centers=["CHUM"], steps=["tumour_ct"], rounds=3)
    run.steps["tumour_ct"].training.moments = "center"
    leader = federate(run, tmp_path, files)
    forget()
    step = run.steps["tumour_ct"]
    order = baseline_order(run, step, base=leader.base, state=starting_state(leader, step))
    kept, fresh = (
        train_pooled(pooled(open_all(files)), order, reset_per_round=reset).validation for reset in (False, True)
    )
    rounds = leader.ledger.events("round_finished", step="tumour_ct")
    assert kept == [event["validation"]["pooled"] for event in rounds] and fresh != kept


def test_averaged_moments_travel_beside_the_update_and_change_the_later_rounds_alone(tmp_path, small_centers):
    states = {}
    for moments in ("averaged", "fresh"):
        run = small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct"], rounds=2)
        run.steps["tumour_ct"].training.moments = moments
        leader = federate(run, tmp_path / moments, small_centers)
        rounds = leader.ledger.events("round_finished", step="tumour_ct")
        states[moments] = [load_checkpoint(leader.folder, "tumour_ct", event) for event in rounds]
    assert equal(states["averaged"][0], states["fresh"][0]) and not equal(states["averaged"][1], states["fresh"][1])


def test_the_seed_decides_every_bit(tmp_path, small_centers):
    def keys(name, seed):
        run = small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct"], rounds=1)
        run.seed = seed
        return adapters(federate(run, tmp_path / name, small_centers))

    first = keys("a", 1)
    assert keys("b", 1) == first
    assert keys("c", 2)["tumour_ct"] != first["tumour_ct"]


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path, small_centers):
    run = small_run(centers=["CHUM", "CHUP", "MDA"], steps=["relapse"], rounds=1)
    keys = [
        adapters(federate(run, tmp_path / str(workers), small_centers, workers=workers)) for workers in (0, 1, 2, 3)
    ]
    assert keys[0] and keys[1:] == keys[:1] * 3
