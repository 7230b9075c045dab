"""Directions that a weight may not move along: what a step of training leaves once they are taken out of it."""

from __future__ import annotations

from torch import Tensor


def off_directions(tensor: Tensor, *, start: Tensor, basis: Tensor) -> Tensor:
    """The tensor with its way from a start made orthogonal to the columns of a basis; float64 within.

    Args:
        tensor, start: (out, in).
        basis: (in, k), orthonormal columns or columns of zeros.
    """
    basis, way = basis.double(), tensor.double() - start.double()
    return (start.double() + way - (way @ basis) @ basis.T).to(tensor.dtype)
