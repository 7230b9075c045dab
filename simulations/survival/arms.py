"""Survival models of several centers compared on the same folds: who may learn from whom, and who is better off.

Every arm gets the training rows of each center and gives each center a risk score for its test rows. The penalty is
chosen inside the training rows by cross-validated partial likelihood (Verweij and van Houwelingen 1993), with the same
grid for every arm; its terms are sums over centers, so the federated arms could choose so too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from common.exact.columns import Layout, LinearModel, Rows, Scaling, add, moment_sums, pooled, scaling_from, standardise
from common.exact.fit import fit_newton
from common.exact.objectives import GRADIENT, HESSIAN, Cox
from common.protocol.messages import State
from server.aggregation.types import Setting, Update
from server.learning.core import learn
from simulations.comparison.names import CENTRALIZED, EXACT, FEDADAM, FEDAVG, LEFT_OUT, LOCAL
from simulations.survival.cohort import Models, Tables, Task
from simulations.survival.penalty import best_penalty

Arm = Callable[[Task], Models]
HEAD = "head/weight"


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
    CENTRALIZED: centralized,
    EXACT: newton,
    FEDAVG: fed_avg,
    FEDADAM: fed_adam,
    LEFT_OUT: leave_one_out,
    LOCAL: local_only,
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
    train_rows, layout, learning = task.train, task.layout, task.learning
    if not _has_event(train_rows):
        return None
    scaling = scaling_from(add(moment_sums(layout, rows) for rows in train_rows.values()))
    x = {c: standardise(layout, rows.values, rows.flags, scaling) for c, rows in train_rows.items()}
    per_case = task.penalty / sum(len(rows) for rows in train_rows.values())

    def train(number: int, state: State) -> list[Update]:
        return [
            Update(c, {HEAD: _descended(task, x[c], rows, state[HEAD], per_case)}, float(len(rows)))
            for c, rows in train_rows.items()
        ]

    start: State = {HEAD: torch.zeros(1, len(layout.names), dtype=torch.float64)}
    course = learn(start, learning.rounds, train=train, setting=lambda number: Setting(federation, round=number))
    return LinearModel(layout, scaling, course.states[course.best][HEAD].numpy(), np.zeros(1))


def _descended(task: Task, x: np.ndarray, rows: Rows, beta: torch.Tensor, per_case: float) -> torch.Tensor:
    """A center's coefficients after its local steps on the mean loss of its cases."""
    found = beta.numpy().copy()
    for _ in range(task.learning.local_steps):
        gradient = Cox().sums(x, rows.target, found)[GRADIENT] / len(rows) + per_case * found
        found = found - task.learning.local_rate * gradient
    return torch.from_numpy(found)
