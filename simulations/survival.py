"""Survival models of several centers compared on the same folds: who may learn from whom, and who is better off.

Every arm gets the training rows of each center and gives each center a risk score for its test rows. The penalty is
chosen inside the training rows by cross-validated partial likelihood (Verweij and van Houwelingen 1993), with the same
grid for every arm; its terms are sums over centers, so the federated arms could choose so too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from client.data.hecktor import Case
from client.data.splits import split_cases
from common.config.schema import FedAdamFederation, MeanFederation, Split
from common.design import Layout, LinearModel, Rows, Scaling, add, moment_sums, pooled, scaling_from, standardise
from common.newton import GRADIENT, HESSIAN, LOSS, Cox, fit_newton
from common.orders import State
from server.aggregation import aggregate
from server.aggregation.updates import Setting, Update

INNER_FOLDS = 3
Tables = dict[str, Rows]  # center -> its cases; target columns: time in days, event


@dataclass
class Cohort:
    """Patients with an outcome, by center; positions within a center are the same in every field."""

    cases: dict[str, list[Case]]
    rows: Tables
    layout: Layout

    @property
    def centers(self) -> list[str]:
        """Codes, sorted."""
        return sorted(self.rows)

    def take(self, positions: Mapping[str, np.ndarray]) -> Tables:
        """The rows at these positions, of the centers that have any."""
        return {c: self.rows[c].take(p) for c, p in sorted(positions.items()) if len(p)}


@dataclass
class Learning:
    """How the arms learn: the penalty's grid (one value switches the choice off), and the federations by gradient
    descent (rounds, local full-batch steps and their rate on the mean loss of a case, FedAdam's settings)."""

    penalties: list[float] = field(default_factory=lambda: [1.0, 3.0, 10.0, 30.0, 100.0])
    rounds: int = 50
    local_steps: int = 5
    local_rate: float = 0.1
    fedavg: Any = field(default_factory=lambda: MeanFederation(weighting="n"))
    fedadam: Any = field(default_factory=lambda: FedAdamFederation(weighting="n", learning_rate=0.03))


Models = dict[str, LinearModel | None]  # None: nothing could be learned, everyone has the same risk


@dataclass
class Task:
    """What an arm learns from: training rows by center, and the penalty that was chosen within all of them; and whom
    it must serve: every center, also one whose only patient is being tested."""

    centers: list[str]
    train: Tables
    layout: Layout
    learning: Learning
    penalty: float


Arm = Callable[[Task], Models]


@dataclass
class Fold:
    """One fold of one repeat: positions of its test patients by center, what was learned from, every arm's models."""

    repeat: int
    test: dict[str, np.ndarray]
    task: Task
    models: dict[str, Models]  # by arm


# ------------------------------------------------------------------------------------------------------------- arms


def newton(task: Task) -> Models:
    """Federated Newton: stratified by center, one model for all."""
    return dict.fromkeys(task.centers, fit(task.train, task.layout, task.penalty))


def centralized(task: Task) -> Models:
    """The pooled fit: one table, its own mean and spread, a stratum label per row."""
    return dict.fromkeys(task.centers, pooled_fit(task.train, task.layout, task.penalty))


def local_only(task: Task) -> Models:
    """Each center alone, with its own mean, spread and penalty."""
    return {c: _own_fit({c: task.train[c]} if c in task.train else {}, task) for c in task.centers}


def leave_one_out(task: Task) -> Models:
    """Each center is served by a federation of all the others, which choose their penalty without it."""
    return {c: _own_fit({o: r for o, r in task.train.items() if o != c}, task) for c in task.centers}


def fed_avg(task: Task) -> Models:
    """Federated averaging: local descent on each center's own objective, then the mean weighted by cases."""
    return dict.fromkeys(task.centers, descend(task, task.learning.fedavg))


def fed_adam(task: Task) -> Models:
    """As FedAvg, with Adam on the server."""
    return dict.fromkeys(task.centers, descend(task, task.learning.fedadam))


ARMS: dict[str, Arm] = {
    "pooled": centralized,
    "federated Newton": newton,
    "FedAvg": fed_avg,
    "FedAdam": fed_adam,
    "leave one center out": leave_one_out,
    "local only": local_only,
}


def fit(train: Tables, layout: Layout, penalty: float) -> LinearModel | None:
    """The federated fit; None where no patient has an event."""
    return fit_newton(Cox(), layout, list(train.values()), penalty=penalty) if _has_event(train) else None


def _own_fit(train: Tables, task: Task) -> LinearModel | None:
    return fit(train, task.layout, best_penalty(train, task.layout, task.learning)) if _has_event(train) else None


def _has_event(train: Tables) -> bool:
    return any((rows.target[:, 1] > 0).any() for rows in train.values())


def pooled_fit(train: Tables, layout: Layout, penalty: float) -> LinearModel | None:
    """The stratified fit of one pooled table, from its rows and labels instead of centers' sums: plain Newton steps
    from plain means and spreads, to check the federated fit against."""
    if not _has_event(train):
        return None
    table = pooled(list(train.values()))
    label = np.repeat(np.arange(len(train)), [len(rows) for rows in train.values()])
    known = layout.known(table.flags) > 0
    recorded = [table.values[known[:, j], j] for j in range(len(layout.values))]
    spread = np.array([column.std() if len(column) else 0.0 for column in recorded])
    scaling = Scaling(
        np.array([column.mean() if len(column) else 0.0 for column in recorded]), np.where(spread > 1e-6, spread, 1.0)
    )
    x = standardise(layout, table.values, table.flags, scaling)
    beta, ridge = np.zeros((1, x.shape[1])), penalty * np.eye(x.shape[1])
    for _ in range(60):
        total = add(Cox().sums(x[label == c], table.target[label == c], beta) for c in range(len(train)))
        step = np.linalg.solve(total[HESSIAN][0] + ridge, total[GRADIENT][0] + penalty * beta[0])
        beta = beta - step
        if np.abs(step).max() < 1e-12:
            break
    return LinearModel(layout, scaling, beta, np.zeros(1))


def descend(task: Task, federation: Any) -> LinearModel | None:
    """Rounds of local descent and aggregation, with the Newton arm's standardisation and penalty."""
    train, layout, learning = task.train, task.layout, task.learning
    if not _has_event(train):
        return None
    scaling = scaling_from(add(moment_sums(layout, rows) for rows in train.values()))
    x = {c: standardise(layout, rows.values, rows.flags, scaling) for c, rows in train.items()}
    per_case = task.penalty / sum(len(rows) for rows in train.values())
    state: State = {"head/weight": torch.zeros(1, len(layout.names), dtype=torch.float64)}
    memory: State = {}
    for number in range(1, learning.rounds + 1):
        updates = []
        for center, rows in train.items():
            beta = state["head/weight"].numpy().copy()
            for _ in range(learning.local_steps):
                gradient = Cox().sums(x[center], rows.target, beta)[GRADIENT] / len(rows) + per_case * beta
                beta = beta - learning.local_rate * gradient
            updates.append(Update(center, {"head/weight": torch.from_numpy(beta)}, float(len(rows))))
        done = aggregate(updates, state, memory, Setting(federation, round=number))
        state, memory = done.state, done.memory
    return LinearModel(layout, scaling, state["head/weight"].numpy(), np.zeros(1))


# ---------------------------------------------------------------------------------------------------------- penalty


def best_penalty(train: Tables, layout: Layout, learning: Learning) -> float:
    """The penalty with the highest cross-validated partial likelihood within these rows; the largest of equals."""
    grid = sorted(learning.penalties, reverse=True)
    if len(grid) == 1:
        return grid[0]
    totals = [sum(_held_out(kept, train, layout, penalty) for kept in _inner(train)) for penalty in grid]
    return grid[int(np.argmax(totals))]


def _inner(train: Tables) -> Iterator[Tables]:
    """The training rows without each inner fold in turn; folds are dealt by center and event, in order."""
    for fold in range(INNER_FOLDS):
        kept = {c: rows.take(_dealt(rows.target[:, 1]) != fold) for c, rows in train.items()}
        yield {c: rows for c, rows in kept.items() if len(rows)}


def _dealt(event: np.ndarray) -> np.ndarray:
    fold = np.zeros(len(event), dtype=int)
    for happened in (True, False):
        chosen = np.flatnonzero((event > 0) == happened)
        fold[chosen] = np.arange(len(chosen)) % INNER_FOLDS
    return fold


def _held_out(kept: Tables, train: Tables, layout: Layout, penalty: float) -> float:
    """Log partial likelihood of all rows minus that of the rows that the model saw."""
    if not any((rows.target[:, 1] > 0).any() for rows in kept.values()):
        return 0.0
    model = fit_newton(Cox(), layout, list(kept.values()), penalty=penalty)
    return _log_likelihood(model, kept) * -1 + _log_likelihood(model, train)


def _log_likelihood(model: LinearModel, centers: Tables) -> float:
    one = np.ones((1, 1))
    return -sum(float(Cox().sums(model.output(rows), rows.target, one)[LOSS][0]) for rows in centers.values())


# ------------------------------------------------------------------------------------------------------- evaluation


@dataclass
class Pairs:
    """Comparable and concordant pairs (n, n) of one center's patients, added over folds and repeats."""

    comparable: np.ndarray
    concordant: np.ndarray


def concordant(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Comparable (n, n) and concordant pairs under HECKTOR's rules (`common.metrics`); equal risks count one half."""
    first = (time[:, None] < time[None, :]) | ((time[:, None] == time[None, :]) & ~(event > 0)[None, :])
    comparable = (first & (event > 0)[:, None]).astype(float)
    won = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    return comparable, comparable * won


def evaluate(
    cohort: Cohort,
    arms: Mapping[str, Arm],
    learning: Learning,
    *,
    folds: int,
    repeats: int,
    across_folds: bool = False,
    say: Callable[[str], None] = lambda line: None,
    seen: Callable[[Fold], None] = lambda fold: None,
) -> dict[str, dict[str, Pairs]]:
    """Arm -> center -> pairs over repeated cross-validation, every arm on the same folds.

    Args:
        across_folds: also compare patients of different test folds of one repeat, whose risks come from different
            models; for centers with fewer patients than it takes to have pairs within a fold.
        seen: gets every fold with its models, for whoever wants more than pairs of them.
    """
    found = {arm: {c: _no_pairs(len(cohort.rows[c])) for c in cohort.centers} for arm in arms}
    for repeat in range(repeats):
        risks = {arm: {c: np.zeros(len(cohort.rows[c])) for c in cohort.centers} for arm in arms}
        fold_of = {c: np.zeros(len(cohort.rows[c]), dtype=int) for c in cohort.centers}
        for fold in range(folds):
            test = positions_in_test(cohort, Split(seed=repeat, folds=folds, fold=fold, validation=0.0))
            train = {c: np.setdiff1d(np.arange(len(cohort.rows[c])), test[c]) for c in cohort.centers}
            for center in cohort.centers:
                fold_of[center][test[center]] = fold
            task = task_of(cohort.take(train), cohort, learning)
            models = {arm: learn(task) for arm, learn in arms.items()}
            for arm in arms:
                for center in cohort.centers:
                    tested = cohort.rows[center].take(test[center])
                    risks[arm][center][test[center]] = risk_of(models[arm][center], tested)
            seen(Fold(repeat, test, task, models))
        for arm in arms:
            for center in cohort.centers:
                _count(found[arm][center], cohort.rows[center], risks[arm][center], fold_of[center], across_folds)
        say(f"repeat {repeat + 1} of {repeats}")
    return found


def task_of(train: Tables, cohort: Cohort, learning: Learning) -> Task:
    """A training task with its penalty chosen."""
    penalty = best_penalty(train, cohort.layout, learning) if _has_event(train) else learning.penalties[0]
    return Task(cohort.centers, train, cohort.layout, learning, penalty)


def positions_in_test(cohort: Cohort, split: Split) -> dict[str, np.ndarray]:
    """Positions of a fold's test patients, by center."""
    chosen = {
        c: {case.patient for case in split_cases(cases, split=split)["test"]} for c, cases in cohort.cases.items()
    }
    return {
        c: np.array([i for i, case in enumerate(cohort.cases[c]) if case.patient in chosen[c]], dtype=int)
        for c in cohort.centers
    }


def risk_of(model: LinearModel | None, rows: Rows) -> np.ndarray:
    """Log risk (n,); zeros where nothing could be learned."""
    return np.zeros(len(rows)) if model is None else model.output(rows)[:, 0]


def _no_pairs(size: int) -> Pairs:
    return Pairs(np.zeros((size, size)), np.zeros((size, size)))


def _count(pairs: Pairs, rows: Rows, risk: np.ndarray, fold: np.ndarray, across_folds: bool) -> None:
    comparable, won = concordant(rows.target[:, 0], rows.target[:, 1], risk)
    together = np.ones_like(comparable) if across_folds else (fold[:, None] == fold[None, :]).astype(float)
    pairs.comparable += comparable * together
    pairs.concordant += won * together


@dataclass
class Estimate:
    """A value with its percentile interval; None where no pair is comparable."""

    value: float | None
    low: float | None
    high: float | None


POOLED = "pooled within centers"


class Bootstrap:
    """C-indices and their differences under the same resampled patients, drawn within centers.

    The models stay: an interval says how much the test patients' draw matters, not the training patients'.
    """

    def __init__(self, cohort: Cohort, *, draws: int, seed: int, level: float = 0.95):
        generator = np.random.default_rng(seed)
        self.level = level
        self.weights = {  # (draws + 1, n): how often each patient is drawn; the first row is the sample itself
            c: np.concatenate([np.ones((1, n)), generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)])
            for c, n in ((c, len(cohort.rows[c])) for c in cohort.centers)
        }

    def index(self, pairs: Mapping[str, Pairs]) -> dict[str, np.ndarray]:
        """C-index (draws + 1,) per center and pooled over the pairs within centers; NaN without a pair."""
        won = {c: _weighted(self.weights[c], p.concordant) for c, p in pairs.items()}
        all_ = {c: _weighted(self.weights[c], p.comparable) for c, p in pairs.items()}
        for table in (won, all_):
            table[POOLED] = np.sum(list(table.values()), axis=0)
        return {c: np.divide(won[c], all_[c], out=np.full_like(won[c], np.nan), where=all_[c] > 0) for c in won}

    def estimate(self, drawn: np.ndarray) -> Estimate:
        """The sample's own value and the interval of the draws that have one."""
        defined = drawn[1:][np.isfinite(drawn[1:])]
        if not np.isfinite(drawn[0]) or not len(defined):
            return Estimate(None, None, None)
        low, high = np.quantile(defined, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Estimate(float(drawn[0]), float(low), float(high))


def _weighted(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return ((weights @ pairs) * weights).sum(axis=1)
