"""Tuning: the same tries for every arm, the validation's choice, and no test case in it."""

import pytest

from common.config.load import compose_run
from common.store.ledger import Ledger
from server.learning.selection import best, score_of
from simulations.comparison.tuning import (
    inequalities,
    read_choice,
    trial_overrides,
    tuned_overrides,
    undecided,
    worth_of_trial,
    write_choice,
)

QUICKSTART = ["curriculum=quickstart", "with_controls=true"]


def chosen(tmp_path, values):
    write_choice(tmp_path / "choice.json", {"step": values}, margin=0.02)
    return read_choice(tmp_path / "choice.json")["step"]


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ({"0.3": 0.1, "1": 0.2, "3": 0.3}, 3.0),
        ({"0.3": -0.9, "1": -0.5, "3": -0.7}, 1.0),
        ({"0.3": 0.5, "1": 0.5, "3": 0.5}, 1.0),
        ({"0.3": None, "1": None, "3": 0.1}, 3.0),
        ({"0.3": None, "1": None, "3": None}, 1.0),
    ],
)
def test_the_best_value_wins_and_ties_stay_in_the_middle(tmp_path, values, factor):
    assert chosen(tmp_path, values) == factor


@pytest.mark.parametrize(
    ("values", "factor", "unclear"),
    [
        ({"0.3": 0.156, "1": 0.155, "3": 0.148}, 1.0, True),  # a trial of three rounds that ranked nothing
        ({"0.3": 0.176, "1": 0.155, "3": 0.148}, 0.3, False),
        ({"0.3": 0.10, "1": 0.20, "3": 0.12}, 1.0, False),
        ({"1": 0.200, "3": 0.205}, 1.0, True),
        ({"3": 0.2}, 3.0, False),
        ({"0.3": 0.2, "1": None, "3": 0.1}, 0.3, False),
    ],
)
def test_trials_that_cannot_tell_rates_apart_say_so_and_keep_the_middle_one(tmp_path, values, factor, unclear):
    assert chosen(tmp_path, values) == factor
    assert undecided(tmp_path / "choice.json") == (["step"] if unclear else [])


def test_nothing_tuned_is_no_choice(tmp_path):
    assert read_choice(tmp_path / "absent.json") == {}


def test_a_trial_is_short_scaled_without_controls_and_evaluated_nowhere():
    run = compose_run(QUICKSTART)
    trial = compose_run([*QUICKSTART, *trial_overrides(run, 3)])
    assert set(trial.steps) == set(run.steps) - set(run.controls)
    for name, step in trial.steps.items():
        assert step.evaluate_at == [] and step.rounds == -(-run.steps[name].rounds // 4)
        assert step.training.learning_rate == pytest.approx(3 * run.steps[name].training.learning_rate)


def test_a_control_trains_at_the_rate_of_the_step_it_controls():
    run = compose_run(QUICKSTART)
    tuned = compose_run([*QUICKSTART, *tuned_overrides(run, {"relapse": 3.0, "tumour_ct": 0.3, "tumour_ctpet": 1.0})])
    factors = {n: s.training.learning_rate / run.steps[n].training.learning_rate for n, s in tuned.steps.items()}
    assert factors["relapse"] == factors["relapse_ct"] == pytest.approx(3)
    assert factors["tumour_ct"] == pytest.approx(0.3)
    assert factors["tumour_ctpet"] == factors["tumour_ct_more"] == factors["hmr_joins"] == 1


def ledger_of(tmp_path, start: float, *rounds: float) -> Ledger:
    """A trial's ledger with these validation values."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for kind, number, value in [
        ("start_validated", 0, start),
        *(("round_finished", n, v) for n, v in enumerate(rounds, 1)),
    ]:
        validation = {"metric": "dice", "pooled": value, "loss": 1.0, "centers": {}}
        ledger.append(kind, {"step": "tumour_ct", "round": number, "validation": validation})
    return ledger


def test_a_federated_trial_is_worth_no_less_than_its_start_as_a_baselines_is(tmp_path):
    """A rate at which training only does harm is worth what it began with, in every arm."""
    assert worth_of_trial(ledger_of(tmp_path, 0.4, 0.1, 0.3), "tumour_ct") == 0.4
    scores = [score_of("dice", value, 1.0) for value in (0.4, 0.1, 0.3)]
    assert scores[best(scores)].value == 0.4  # as `simulations.comparison.baselines.train_pooled` chooses


def test_where_tuning_is_not_equal_the_steps_are_named():
    run = compose_run(QUICKSTART)
    [said] = inequalities(run)
    assert said.startswith("relapse_ct, tumour_ct_more: not tuned")
    run.compare.learning_rates = [1.0]
    assert inequalities(run) == []


def test_a_trial_of_a_step_with_a_budget_spends_a_share_of_it():
    run = compose_run([*QUICKSTART, "steps.tumour_ct.budget='90 steps'", "compare.tuning_share=0.25"])
    assert "steps.tumour_ct.budget='23 steps'" in trial_overrides(run, 1.0)
    assert not [one for one in trial_overrides(run, 1.0) if "tumour_ctpet.budget" in one]
