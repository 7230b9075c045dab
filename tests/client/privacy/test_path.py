"""The path of an exact fit: an honest search is answered to its end; a server that points at a patient is not."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from client.privacy.path import (
    COUNTS,
    MOST_QUESTIONS,
    Point,
    check_weight,
    effective_number,
    point_of,
)
from client.privacy.path import walk as walk_about
from client.privacy.rows import shared_rows
from common.config.load import compose_run
from common.errors import PolicyRefusal
from common.exact.columns import Layout, Scaling, add, moment_sums, plain_rows, pooled, scaling_from, standardise
from common.exact.objectives import GRADIENT, HESSIAN, LOSS, build_objective
from common.exact.search import advance, begin
from common.exact.step import BETA, MEAN, SCALE
from common.protocol.messages import Order
from common.store.sealed import DamagedFile
from tests.client.privacy.test_rows import LAYOUT, rows_of

walk = partial(walk_about, about=frozenset({"age", "target|prognosis|"}), most=20_000)
PLAIN = Layout(("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def order():
    step = compose_run(["curriculum=exact", "backbone=tiny", "name=path"]).steps["relapse_exact"]
    return Order(step, 1, 1, None, "", None, run="0" * 64)  # type: ignore[arg-type]


def point(beta=(0.0,) * 4, mean=0.0, scale=1.0):
    return Point(Scaling(np.full(4, mean), np.full(4, scale)), np.array([[0.0, *beta]]))


def code_of(action, *arguments, **others):
    with pytest.raises(PolicyRefusal) as refusal:
        action(*arguments, **others)
    return refusal.value.code


@pytest.mark.parametrize("objective", ["cox", "hazard", "logistic"])
@pytest.mark.parametrize("seed", range(3))
def test_an_honest_search_is_answered_to_its_end(objective, seed, tmp_path, order):
    """Three centers of HECKTOR's kind at a minimum of 5: every question passes, and the fit settles."""
    goal = build_objective(objective, bins=12)
    centers = [
        rows_of(n, m, objective=objective, seed=seed + n)
        for n, m in ((36, (0, 36, 36, 20)), (46, (0, 0, 0, 9)), (126, (0, 33, 56, 10)))
    ]
    shared = [shared_rows(LAYOUT, rows, objective=objective, minimum=5).rows for rows in centers]
    scaling = scaling_from(add(moment_sums(LAYOUT, rows) for rows in shared))
    penalty = goal.penalised(len(LAYOUT.names))
    search = begin(goal.shape(len(LAYOUT.names)))
    walk(tmp_path, replace(order, round=0), None)
    while not search.done and search.rounds < 40:
        known = {MEAN: scaling.mean, SCALE: scaling.scale, BETA: search.asked}
        asked = point_of(known, LAYOUT, goal)
        walk(tmp_path, replace(order, round=search.rounds + 1), asked)
        parts = []
        for rows in shared:
            check_weight(asked, LAYOUT, rows, goal, minimum=5)
            parts.append(goal.sums(standardise(LAYOUT, rows.values, rows.flags, scaling), rows.target, search.asked))
        search = advance(search, add(parts), penalty=penalty)
    assert search.done and np.isfinite(search.asked).all()


def test_a_point_that_singles_out_a_patient_is_refused():
    """DEFECTS A3: at beta = (760, 400, 0, 0, 0) the Hessian had rank one and was one patient's row."""
    rng = np.random.default_rng(0)
    rows, goal = plain_rows(rng.normal(size=(40, 4)), rng.integers(0, 2, 40)), build_objective("logistic")
    known = {MEAN: np.zeros(4), SCALE: np.ones(4), BETA: np.array([[760.0, 400, 0, 0, 0]])}
    assert code_of(point_of, known, PLAIN, goal) == "declined.point"
    tall = np.argmax(rows.values[:, 0])
    for steep in (30.0, 20.0):  # within bounds: a threshold just at one patient
        aimed = Point(
            Scaling(np.zeros(4), np.full(4, 0.02)), np.array([[-steep * rows.values[tall, 0] / 0.02, steep, 0, 0, 0]])
        )
        assert code_of(check_weight, aimed, PLAIN, rows, goal, minimum=5) == "declined.weight"
        hessian = goal.sums(standardise(PLAIN, rows.values, rows.flags, aimed.scaling), rows.target, aimed.beta)[
            HESSIAN
        ][0]
        np.testing.assert_allclose(hessian[0, 1:] / hessian[0, 0], rows.values[tall] / 0.02, atol=1e-3)
    check_weight(point(), PLAIN, rows, goal, minimum=5)


@pytest.mark.parametrize("objective", ["cox", "hazard", "logistic"])
def test_a_steep_score_shows_too_few_patients(objective):
    rows = rows_of(40, (0, 0, 0, 0), objective=objective, seed=1, share=0.5)
    goal = build_objective(objective, bins=12)
    shared = shared_rows(LAYOUT, rows, objective=objective, minimum=5).rows
    beta = np.zeros(goal.shape(len(LAYOUT.names)))
    ones = moment_sums(LAYOUT, shared)
    aimed = Point(scaling_from(ones), beta)
    check_weight(aimed, LAYOUT, shared, goal, minimum=5)
    beta[0, -len(LAYOUT.names)] = 30.0  # age, as steep as may be
    assert code_of(check_weight, aimed, LAYOUT, shared, goal, minimum=5) == "declined.weight"


@pytest.mark.parametrize(
    "wrong",
    [
        {BETA: np.full((1, 5), np.inf)}, {BETA: np.zeros((1, 4))}, {MEAN: np.full(4, np.nan)}, {SCALE: np.zeros(4)},
        {SCALE: -np.ones(4)}, {BETA: np.full((1, 5), -31.0)},
    ],
)  # fmt: skip
def test_what_is_no_point_is_refused(wrong):
    known = {MEAN: np.zeros(4), SCALE: np.ones(4), BETA: np.zeros((1, 5))}
    assert point_of(known, PLAIN, build_objective("logistic")).beta.shape == (1, 5)
    assert code_of(point_of, known | wrong, PLAIN, build_objective("logistic")) == "declined.point"
    assert code_of(point_of, {}, PLAIN, build_objective("logistic")) == "declined.point"


def test_a_scale_that_throws_patients_far_out_is_refused():
    rows = plain_rows(np.eye(4).repeat(5, axis=0), np.tile([0.0, 1.0], 10))
    far = point(scale=1e-6)
    assert code_of(check_weight, far, PLAIN, rows, build_objective("logistic"), minimum=5) == "declined.point"


def test_the_moments_come_first_and_the_standardisation_stays(tmp_path, order):
    assert code_of(walk, tmp_path, order, point()) == "declined.path"
    walk(tmp_path, replace(order, round=0), None)
    walk(tmp_path, order, point())
    walk(tmp_path, replace(order, round=2), point((1, 0, 0, 0)))
    walk(tmp_path, replace(order, round=2), point((1, 0, 0, 0)))  # the very same, always
    assert code_of(walk, tmp_path, replace(order, round=3), point((1, 1, 0, 0), mean=0.5)) == "declined.path"
    assert code_of(walk, tmp_path, replace(order, round=1), point((1, 1, 0, 0), mean=0.5)) == "declined.path"
    walk(tmp_path, order, point(mean=0.5))  # a center left: the fit begins again, at zero
    walk(tmp_path, replace(order, round=2), point((1, 1, 0, 0), mean=0.5))
    assert code_of(walk, tmp_path, replace(order, round=2), point((2, 1, 0, 0))) == "declined.path"


def test_questions_are_counted(tmp_path, order):
    walk(tmp_path, replace(order, round=0), None)
    for number in range(8):
        walk(tmp_path, order, point(mean=float(number)))
    assert code_of(walk, tmp_path, order, point(mean=8.0)) == "declined.questions"
    other = replace(order, run="1" * 64)
    walk(tmp_path, replace(other, round=0), None)
    assert MOST_QUESTIONS == 1000
    walk(tmp_path, other, point())


def test_a_cohort_counts_what_is_asked_of_it_whatever_the_run_is_called(tmp_path, order):
    """Step and run are names of the server's choosing: with a new one the path begins again, the count does not."""
    age = frozenset({"age", "target|prognosis|"})

    def point_of_run(number, about=age, round=1):
        other = replace(order, run=f"{number:064x}")
        walk_about(tmp_path, replace(other, round=0), None, about=frozenset({"age"}), most=3)
        walk_about(tmp_path, replace(other, round=round), point(), about=about, most=3)

    for number in range(3):
        point_of_run(number)
        point_of_run(number)  # the very same is no other question
    assert code_of(point_of_run, 3) == code_of(point_of_run, 3) == "declined.questions"
    assert code_of(point_of_run, 4, frozenset({"gender", "target|prognosis|"})) == "declined.questions"
    point_of_run(5, frozenset({"gender", "target|classification|hpv"}))
    (tmp_path / "exact" / COUNTS).write_text("{}")
    with pytest.raises(DamagedFile, match="restore it from a backup"):
        point_of_run(6, frozenset({"gender"}))


def test_effective_numbers():
    assert effective_number(np.full(7, 0.25)) == pytest.approx(7) and effective_number(np.zeros(3)) == 0
    assert effective_number(np.array([1.0, 1e-9])) == pytest.approx(1)


def test_what_weighs_is_what_the_hessian_is_made_of():
    rows = pooled([rows_of(30, (0, 0, 0, 0), objective="logistic", seed=4)])
    goal, beta = build_objective("logistic"), np.random.default_rng(1).normal(size=(1, 11)) / 10
    x = standardise(LAYOUT, rows.values, rows.flags, scaling_from(moment_sums(LAYOUT, rows)))
    [weight] = goal.weights(x, rows.target, beta)
    sums = goal.sums(x, rows.target, beta)
    assert sums[HESSIAN][0, 0, 0] == pytest.approx(weight.sum()) and {LOSS, GRADIENT} < set(sums)
