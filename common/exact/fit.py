"""Exact federation: additive objectives whose loss, gradient and Hessian are sums over centers, and Newton's method.

Stratified Cox (Efron ties; a risk set never crosses a center), discrete-time hazard, logistic regression and ridge.
Because every round's step is computed from added sums, the federated fit is the centralized one; the only difference is
the order of additions. Everything is float64 numpy and pure: centers, server and simulations call the same code.

Efron 1977, JASA 72(359); Singer and Willett 1993, J. Educ. Stat. 18(2) (discrete-time hazard); analytic federated
learning, arXiv 2405.16240 (ridge from Gram sums).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.exact.columns import (
    Layout,
    LinearModel,
    Rows,
    add,
    moment_sums,
    plain_rows,
    scaling_from,
    standardise,
)
from common.exact.objectives import Objective
from common.exact.ridge import ridge_from_sums, ridge_sums
from common.exact.search import advance, begin, model_of, strongest_first


def fit_newton(
    objective: Objective,
    layout: Layout,
    centers: Sequence[Rows],
    *,
    penalty: float = 1.0,
    max_rounds: int = 50,
) -> LinearModel:
    """The federated fit in one process: exactly what centers and server compute together.

    Args:
        centers: one entry per center, each a stratum of its own in a Cox model.
        penalty: of penalty / 2 * |weight| ** 2 on standardised columns, beside the summed loss.
    """
    return fit_path(objective, layout, centers, [penalty], max_rounds=max_rounds)[penalty]


def fit_path(
    objective: Objective, layout: Layout, centers: Sequence[Rows], penalties: Sequence[float], *, max_rounds: int = 50
) -> dict[float, LinearModel]:
    """`fit_newton` for several penalties, the strongest first, each from where the one before ended."""
    scaling = scaling_from(add(moment_sums(layout, rows) for rows in centers))
    matrices = [standardise(layout, rows.values, rows.flags, scaling) for rows in centers]
    columns, found = len(layout.names), {}
    search = begin(objective.shape(columns))
    for penalty in strongest_first(penalties):
        search, weights = begin(search.asked.shape, at=search.asked), penalty * objective.penalised(columns)
        while not search.is_over and search.rounds < max_rounds:
            asked = search.asked
            parts = [objective.sums(x, rows.target, asked) for x, rows in zip(matrices, centers, strict=True)]
            search = advance(search, add(parts), penalty=weights)
        found[penalty] = model_of(objective, layout, scaling, search)
    return found


def fit_features(
    objective: Objective, features: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, penalty: float = 1.0
) -> LinearModel:
    """`fit_newton` on plain features (n, P) and targets (n, T), one array per center."""
    layout = Layout(tuple(f"feature {i}" for i in range(features[0].shape[1])))
    rows = [plain_rows(x, y) for x, y in zip(features, targets, strict=True)]
    return fit_newton(objective, layout, rows, penalty=penalty)


def fit_ridge(layout: Layout, centers: Sequence[Rows], *, penalty: float = 1.0) -> LinearModel:
    """The federated ridge fit in one process."""
    return ridge_from_sums(layout, add(ridge_sums(layout, rows) for rows in centers), penalty=penalty)
