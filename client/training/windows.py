"""Columns of chosen voxels of a crop that is larger than the window, or that is seen mirrored too.

One rule for fitting and for answering: what windows and mirrored views say of a voxel is averaged, windows by MONAI's
Gaussian weights. An exact head is linear in its columns, so the averaged answer of the windows
(`client.training.prediction.predict`) is the answer to the averaged columns, which the fit has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

from common.config.options import AXES
from common.config.view import View
from common.data.batch import Batch, is_volume, volumes_of
from common.exact.voxels import at_voxels
from common.model.adapted import AdaptedModel

Box = tuple[slice, slice, slice]


def mirrorings(mirrors: Sequence[str]) -> list[list[int]]:
    """Axes (0 to 2) that each view mirrors, the plain view first: all combinations."""
    axes = [AXES.index(name) for name in mirrors]
    return [list(some) for count in range(len(axes) + 1) for some in combinations(axes, count)]


def windows_over(size: Sequence[int], window: Sequence[int], overlap: float) -> list[Box]:
    """The windows that MONAI's sliding windows look at, in their order."""
    steps = [w if w == side else max(1, int(w * (1 - overlap))) for side, w in zip(size, window, strict=True)]
    return [tuple(box) for box in dense_patch_slices(size, window, steps)]  # type: ignore[misc]


def columns_at(model: AdaptedModel, batch: Batch, chosen: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Columns (n, F) of one case's voxels at flat places (n,) of its crop, and which modalities it has (n, M).

    Args:
        batch: of one case, on the model's device.
        view: its window, its overlap and its mirrors are the rule.
    """
    size = batch.inputs[volumes_of(batch.inputs)[0]].shape[2:]
    places = torch.stack(torch.unravel_index(chosen.to(model.device), size), dim=1)  # (n, 3)
    views = [_seen(model, batch, places, axes, view) for axes in mirrorings(view.mirrors)]
    flags = torch.stack([batch.present[m] for m in model.modalities if is_volume(m)], dim=1)
    values = views[0] if len(views) == 1 else torch.stack(views).mean(dim=0)
    return values, flags.expand(len(chosen), -1)


def _seen(model: AdaptedModel, batch: Batch, places: Tensor, axes: list[int], view: View) -> Tensor:
    """(n, F) of one view, which mirrors these axes."""
    inputs = {name: x.flip([2 + axis for axis in axes]) if is_volume(name) else x for name, x in batch.inputs.items()}
    size = torch.tensor(batch.inputs[volumes_of(batch.inputs)[0]].shape[2:], device=places.device)
    there = places.clone()
    for axis in axes:
        there[:, axis] = size[axis] - 1 - there[:, axis]
    if list(size) == list(view.window):
        return _at(model, Batch(inputs, batch.present, {}), there)
    weights = compute_importance_map(tuple(view.window), mode="gaussian", device=places.device)
    total: Tensor | None = None
    weight = torch.zeros(len(places), device=places.device)
    for box, inside, local in _windows(size.tolist(), view, there):
        part = Batch({n: x[(..., *box)] if is_volume(n) else x for n, x in inputs.items()}, batch.present, {})
        found, own = _at(model, part, local), weights[tuple(local.T)]
        total = found.new_zeros(len(places), found.shape[1]) if total is None else total
        total[inside] += own[:, None] * found
        weight[inside] += own
    assert total is not None  # windows cover the crop, and a case has voxels
    return total / weight[:, None]


def _windows(size: Sequence[int], view: View, places: Tensor) -> Iterator[tuple[Box, Tensor, Tensor]]:
    """Each window that holds a voxel: its box, which voxels (k,) they are, and where (k, 3) they lie in it."""
    for box in windows_over(size, view.window, view.overlap):
        low = torch.tensor([side.start for side in box], device=places.device)
        high = torch.tensor([side.stop for side in box], device=places.device)
        inside = ((places >= low) & (places < high)).all(dim=1).nonzero()[:, 0]
        if len(inside):
            yield box, inside, places[inside] - low


def _at(model: AdaptedModel, batch: Batch, places: Tensor) -> Tensor:
    size = batch.inputs[volumes_of(batch.inputs)[0]].shape[2:]
    flat = (places * torch.tensor([size[1] * size[2], size[2], 1], device=places.device)).sum(dim=1)
    maps, _ = model.maps(model.encode(batch.inputs, batch.present), batch.inputs, batch.present)
    return at_voxels(maps, flat, size)
