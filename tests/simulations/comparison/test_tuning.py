"""Tuning: the same tries for every arm, the validation's choice, and no test case in it."""

import pytest

from common.config.load import compose_run
from simulations.comparison.tuning import read_choice, trial_overrides, tuned_overrides, write_choice

QUICKSTART = ["curriculum=quickstart", "with_controls=true"]


def chosen(tmp_path, values):
    write_choice(tmp_path / "choice.json", {"step": values})
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
def test_the_best_value_wins_and_ties_stay_near_the_default(tmp_path, values, factor):
    assert chosen(tmp_path, values) == factor


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
