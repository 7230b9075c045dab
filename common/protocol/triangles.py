"""Symmetric sums travel as triangles: of a Hessian or a Gram matrix only the cells that say something.

In the house they are whole matrices. On the wire the lower triangle stands alone, row by row, which is half the bytes;
Newton's search reads the lower triangle only, so nothing of a fit depends on how its sums traveled.
"""

from __future__ import annotations

import math

import numpy as np

SYMMETRIC = ("newton.hessian", "ridge.gram")  # sums of shape (C, Q, Q)
MOMENT = "moment/"  # begins the names of further ones, of shape (Q, Q)


def is_symmetric(name: str) -> bool:
    """Whether a sum of this name is symmetric in its last two axes."""
    return name in SYMMETRIC or name.startswith(MOMENT)


def traveling_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a sum has on the wire: (C, Q (Q + 1) / 2) for the symmetric ones."""
    if not is_symmetric(name):
        return tuple(shape)
    side = shape[-1]
    return (*shape[:-2], side * (side + 1) // 2)


def packed(name: str, value: np.ndarray) -> np.ndarray:
    """A sum as it travels. A symmetric one that is no stack of squares stays as it is: its reader will refuse it."""
    if not is_symmetric(name) or value.ndim < 2 or value.shape[-1] != value.shape[-2]:
        return value
    rows, columns = np.tril_indices(value.shape[-1])
    return value[..., rows, columns]


def unpacked(name: str, value: np.ndarray) -> np.ndarray:
    """A sum as the house knows it; a length that no triangle has stays as it is, and is then undeclared."""
    if not is_symmetric(name) or value.ndim < 1:
        return value
    side = (math.isqrt(8 * value.shape[-1] + 1) - 1) // 2
    if side * (side + 1) // 2 != value.shape[-1] or side == 0:
        return value
    rows, columns = np.tril_indices(side)
    whole = np.zeros((*value.shape[:-1], side, side), value.dtype)
    whole[..., rows, columns] = value
    whole[..., columns, rows] = value
    return whole
