"""Ridge regression from summed Gram matrices: one question is the whole fit, and a center can be subtracted again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.exact.columns import (
    Layout,
    LinearModel,
    Rows,
    Scaling,
    scaling_from,
)
from common.exact.objectives import INTERCEPT_PENALTY, with_ones
from common.exact.search import solve
from common.protocol.messages import Sums

GRAM, MOMENT, CASES = "ridge.gram", "ridge.moment", "ridge.cases"


def ridge_sums(layout: Layout, rows: Rows) -> Sums:
    """Gram sums of raw columns [1, values, flags] with the targets (n, C), per class over its known targets (>= 0).

    Raw, so that means and scales follow from the sums themselves: one round is the whole fit, and subtracting a
    center's sums leaves exactly what the others alone would have sent.
    """
    x = with_ones(np.concatenate([rows.values, rows.flags], axis=1))
    masks = (rows.target >= 0).T.astype(float)  # (C, n)
    signed = np.where(rows.target >= 0, 2 * rows.target - 1, 0.0).T  # (C, n): -1 or 1
    return {
        GRAM: np.stack([(x * mask[:, None]).T @ x for mask in masks]),
        MOMENT: signed @ x,
        CASES: masks.sum(axis=1),
    }


def ridge_shapes(values: int, flags: int, classes: int) -> dict[str, tuple[int, ...]]:
    """What `ridge_sums` may say."""
    size = 1 + values + flags
    return {GRAM: (classes, size, size), MOMENT: (classes, size), CASES: (classes,)}


def ridge_from_sums(layout: Layout, sums: Mapping[str, np.ndarray], *, penalty: float = 1.0) -> LinearModel:
    """The least-squares model of targets -1 and 1, from added `ridge_sums`.

    Means and scales come from the class with the most known targets, the same for all classes.
    """
    widest = int(np.argmax(sums[CASES]))
    gram = sums[GRAM][widest]
    scaling = _scaling_of_gram(layout, gram)
    turn = _standardising(layout, scaling)
    weights = penalty * np.concatenate([[INTERCEPT_PENALTY], np.ones(len(layout.names))])
    solved = np.stack([
        solve(turn @ g @ turn.T + np.diag(weights), turn @ m)
        for g, m in zip(sums[GRAM], sums[MOMENT], strict=True)
    ])  # fmt: skip
    return LinearModel(layout, scaling, solved[:, 1:], solved[:, 0], rounds=1)


def _scaling_of_gram(layout: Layout, gram: np.ndarray) -> Scaling:
    """Moments of the recorded values, read off the Gram matrix of [1, values, flags]."""
    values = len(layout.values)
    flag_columns = [0 if i < 0 else 1 + values + i for i in layout.flag_of]
    positions = np.arange(1, 1 + values)
    return scaling_from({
        "moments.count": gram[0, flag_columns],
        "moments.sum": gram[0, positions],
        "moments.square": gram[positions, positions],
    })  # fmt: skip


def _standardising(layout: Layout, scaling: Scaling) -> np.ndarray:
    """The matrix that turns a raw row [1, values, flags] into [1, standardised columns]."""
    values, flags = len(layout.values), len(layout.flags)
    turn = np.zeros((1 + len(layout.names), 1 + values + flags))
    turn[0, 0] = 1.0
    for i, flag in enumerate(layout.flag_of):
        turn[1 + i, 1 + i] = 1 / scaling.scale[i]
        turn[1 + i, 0 if flag < 0 else 1 + values + flag] -= scaling.mean[i] / scaling.scale[i]
    if layout.with_flags:
        turn[1 + values :, 1 + values :] = np.eye(flags)
    return turn
