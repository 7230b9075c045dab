"""Honest Newton sums fit their center's moments and each other, for every objective; sums of no function do not."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from client.privacy.rows import shared_rows
from client.privacy.voxels import VoxelRows, shared_voxels
from common.exact.columns import COUNT, SQUARE, SUM, Layout, Rows, add, moment_sums, scaling_from, standardise
from common.exact.objectives import (
    GRADIENT,
    HESSIAN,
    LARGEST_VALUE,
    LOSS,
    NEWTON_KINDS,
    Cox,
    Objective,
    build_objective,
)
from common.exact.room import REACH, Room, no_convex_function, out_of_proportion, room_of, told_at
from common.exact.search import advance, begin
from common.exact.step import CELLS
from common.tasks.cells import guarded

OBJECTIVES = {kind: build_objective(kind, bins=4, classes=2) for kind in NEWTON_KINDS}
KINDS = [*NEWTON_KINDS, "voxels"]


@dataclass
class Fit:
    """Two centers' rows as they are summed, and the first one's room."""

    objective: Objective
    layout: Layout
    rows: list[Rows]
    room: Room
    matrices: list[np.ndarray]

    def sums(self, beta, center=0):
        return self.objective.sums(self.matrices[center], self.rows[center].target, beta)

    def said(self, points):
        """What the server says of the first center's answers at points, one after the other."""
        earlier = []
        for beta in points:
            sums = self.sums(beta)
            now = told_at(beta, sums)
            yield out_of_proportion(sums, beta, self.room) or no_convex_function(earlier, now, self.room)
            earlier.append(now)

    def searched(self, penalty=1.0, rounds=12):
        """The points at which an honest search asks."""
        search = begin(self.objective.shape(len(self.layout.names)))
        weights = penalty * self.objective.penalised(len(self.layout.names))
        while not search.is_over and search.rounds < rounds:
            yield search.asked
            search = advance(search, add(self.sums(search.asked, c) for c in (0, 1)), penalty=weights)


def fit_of(kind: str, seed: int, *, sizes=(14, 9), minimum=1, with_flags=True) -> Fit:
    draw = np.random.default_rng(seed)
    objective = OBJECTIVES["logistic" if kind == "voxels" else kind]
    layout = Layout(("a", "b", "c"), ("a", "b"), (0, 1, 1), with_flags=with_flags)
    shared, moments = [], []
    for n in sizes:
        rows, cases = _rows(draw, kind, layout, n), n
        if kind == "voxels":
            cases = max(n // 3, 1)
            own = shared_voxels(layout, VoxelRows(rows, np.arange(n) % cases), minimum=min(minimum, cases)).rows
        else:
            own = shared_rows(layout, rows, objective=kind, minimum=min(minimum, n)).rows
        shared.append(own)
        moments.append(guarded(moment_sums(layout, own), CELLS, cases=cases, minimum=minimum)[0])
    scaling = scaling_from(add(moments))
    matrices = [standardise(layout, rows.values, rows.flags, scaling) for rows in shared]
    columns = objective.shape(len(layout.names))[1]
    room = room_of(
        moments[0], objective=objective, mean=scaling.mean, scale=scaling.scale, cases=sizes[0], columns=columns
    )
    return Fit(objective, layout, shared, room, matrices)


def _rows(draw, kind, layout, n) -> Rows:
    flags = (draw.random((n, 2)) < draw.uniform(0.1, 1.0, 2)).astype(float)
    values = draw.normal(draw.uniform(-100, 100, 3), draw.uniform(0.01, 30, 3), (n, 3)).astype(np.float32).astype(float)
    values = np.where(draw.random((n, 3)) < 0.02, values + 1e3, values) * layout.known(flags)
    target = {
        "cox": lambda: np.stack([draw.integers(1, 40, n), draw.integers(0, 2, n)], axis=1),
        "hazard": lambda: np.stack([draw.integers(0, 4, n), draw.integers(0, 2, n)], axis=1),
        "logistic": lambda: draw.integers(-1, 2, (n, 2)),
        "voxels": lambda: draw.integers(0, 2, (n, 2)),
    }[kind]()
    return Rows(values, flags, target.astype(float))


def test_every_objective_has_its_reach():
    assert REACH.keys() == set(NEWTON_KINDS)


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    minimum=st.sampled_from([1, 3, 5]),
    with_flags=st.booleans(),
    reach=st.sampled_from([0.1, 1.0, 30.0]),
)
@settings(max_examples=40, deadline=None)
def test_sums_of_any_cohort_fit_their_moments_and_each_other(kind, seed, sizes, minimum, with_flags, reach):
    """Along an honest search and at points far from it, at every minimum, with columns that the moments hide."""
    fit = fit_of(kind, seed, sizes=sizes, minimum=minimum, with_flags=with_flags)
    assume(np.abs(fit.matrices[0]).max() <= LARGEST_VALUE)  # else the center declines (`client.privacy.path`)
    draw = np.random.default_rng(seed + 1)
    shape = fit.objective.shape(len(fit.layout.names))
    points = [*fit.searched(), *(np.clip(draw.normal(0, reach, shape), -30, 30) for _ in range(3))]
    assert set(fit.said(points)) == {""}


def lied(kind: str, **changes):
    """What is said of an answer at the second point of an honest search, with some of its sums changed."""
    fit = fit_of(kind, 3)
    first, second, *_ = fit.searched()
    honest = fit.sums(second)
    sums = {**honest, **{name: change(honest[name]) for name, change in changes.items()}}
    found = out_of_proportion(sums, second, fit.room)
    return found or no_convex_function([told_at(first, fit.sums(first))], told_at(second, sums), fit.room)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (LOSS, lambda x: x + 1e6, "newton.loss is more than the center's own columns allow"),
        (LOSS, lambda x: x + 20.0, "newton.loss at an earlier question lies below its tangent here"),
        (LOSS, lambda x: x * 0, "newton.loss lies below its own tangent at an earlier question"),
        (GRADIENT, lambda x: x + 3e4, "newton.gradient is more than the center's own columns allow"),
        (HESSIAN, lambda x: x + 1e7 * np.eye(x.shape[-1]), "newton.hessian is more than the center's own columns"),
    ],
)
def test_an_answer_of_no_patients_is_named(kind, name, change, says):
    assert lied(kind, **{name: change}) and says in lied(kind, **{name: change})


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_and_gradient_that_go_together_may_still_rise_too_much(kind):
    """Between two answers that are convex together the loss is held by the center's own columns."""
    fit = fit_of(kind, 3)
    first, second, *_ = fit.searched()
    way, before = second - first, told_at(first, fit.sums(first))
    bound = fit.room.reach.curve * fit.room.score(way) ** 2 / 2
    for times, says in ((0.9, ""), (1.1, "rises more than the center's own columns allow")):
        loss = before.loss + np.sum(before.gradient * way, axis=1) + times * bound
        steep = before.gradient + way * (2 * times * bound / np.sum(way**2, axis=1))[:, None]
        now = told_at(second, {LOSS: loss, GRADIENT: steep})
        found = no_convex_function([before], now, fit.room)
        assert (says in found) if says else found == ""


@pytest.mark.parametrize("kind", KINDS)
def test_zero_moments_excuse_no_gradient(kind):
    """A column that is hidden has a bound of its own, and the others keep theirs."""
    fit = fit_of(kind, 3)
    scale, shape = np.ones(3), fit.objective.shape(len(fit.layout.names))
    hidden = {name: np.zeros(3) for name in (COUNT, SUM, SQUARE)}
    honest = moment_sums(fit.layout, fit.rows[0])
    partly = {name: np.where([True, False, False], 0.0, value) for name, value in honest.items()}
    steep = np.full(shape, 1e6)
    for moments in (hidden, partly):
        room = room_of(moments, objective=fit.objective, mean=scale * 0, scale=scale, cases=14, columns=shape[1])
        sums = {LOSS: np.zeros(shape[0]), GRADIENT: steep, HESSIAN: np.zeros((*shape, shape[1]))}
        assert "newton.gradient" in out_of_proportion(sums, np.zeros(shape), room)
    beyond = room.reach.push * room.size * np.where(np.arange(shape[1]) == shape[1] - 1, 1.01, 0.0)
    sums = {**sums, GRADIENT: np.tile(beyond, (shape[0], 1))}
    assert "newton.gradient" in out_of_proportion(sums, np.zeros(shape), room)


def test_a_risk_set_without_weight_is_still_of_the_convex_function():
    """Far points: beside the highest score of a stratum the others' weights are below the smallest number."""
    x = np.array([[0.0], [800.0], [1.0]])
    rows = Rows(x, np.zeros((3, 0)), np.array([[5.0, 1], [1.0, 1], [9.0, 0]]))
    near, far = (Cox().sums(x, rows.target, np.array([[b]])) for b in (0.0, 1.0))
    assert far[LOSS][0] == pytest.approx(np.log1p(np.e), rel=1e-12)  # the second case leaves no doubt at its time
    assert far[GRADIENT][0, 0] == pytest.approx(1 / (1 + np.exp(-1.0)), rel=1e-12)
    assert near[LOSS][0] == pytest.approx(np.log(3) + np.log(2), rel=1e-12)
