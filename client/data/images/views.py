"""Further random views of training cases, each by a transform that MONAI keeps, in nnU-Net's order and chances.

Everything is a function of the step's torch.Generator: it gives each batch one number, from which every case, view and
modality has a random state of its own. A view more or a modality less changes none of the others, and the spatial
views move every image of a case and its mask alike. Whatever a view does to intensities, an image stays within the
range that it had, so that an uptake in SUV is never negative.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    RandAdjustContrast,
    RandAffined,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandHistogramShift,
    RandSimulateLowResolution,
)
from torch import Tensor

from common.config.options import VIEWS
from common.data.batch import Batch, volumes_of

Case = dict[str, Tensor]  # (1, D, H, W) by modality, and the mask
MASK = "mask"
DEGREES = 15.0  # of a rotation about each axis, at most
ZOOM = 0.15  # relative, each axis alike or not
ELASTIC_KNOTS = 6.0  # voxels between the knots of an elastic view
ELASTIC_SHIFT = 2.0  # voxels that a knot moves, one standard deviation
NOISE = 0.05  # largest standard deviation, as a share of the image's own range


def changed(batch: Batch, views: Sequence[str], *, generator: torch.Generator) -> Batch:
    """The batch with every case seen through the views, in the order of `ORDER`; as it is without views."""
    if not views:
        return batch
    seed = int(torch.randint(1 << 62, (), generator=generator))
    cases = [_one(batch, row, views, seed) for row in range(len(batch))]
    inputs = batch.inputs | {m: torch.stack([case[m] for case in cases]) for m in volumes_of(batch.inputs)}
    target = dict(batch.target)
    if MASK in target:
        target[MASK] = torch.stack([case[MASK] for case in cases]).to(target[MASK].dtype).reshape(target[MASK].shape)
    return Batch(inputs, batch.present, target)


def _one(batch: Batch, row: int, views: Sequence[str], seed: int) -> Case:
    """One case through its views; a modality that it lacks stays zero."""
    case = {m: batch.inputs[m][row].float() for m in volumes_of(batch.inputs)}
    there = [m for m in case if bool(batch.present[m][row])]
    if MASK in batch.target:
        mask = batch.target[MASK][row]
        case[MASK] = (mask if mask.dim() == 4 else mask[None]).float()
    for name in (name for name in ORDER if name in views):
        if name in SPATIAL:
            case |= SPATIAL[name]({k: v for k, v in case.items() if k in there or k == MASK}, _state(seed, row, name))
            continue
        for modality in there:
            case[modality] = _within(case[modality], INTENSITY[name], _state(seed, row, name, modality))
    return case


def _state(seed: int, row: int, *names: str) -> np.random.RandomState:
    """A random state of its own for each case, view and modality."""
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, row, zlib.crc32("/".join(names).encode())])


def _within(image: Tensor, transform: Callable[[], Any], state: np.random.RandomState) -> Tensor:
    low, high = image.min(), image.max()
    if low == high:
        return image
    made = transform().set_random_state(state=state)((image - low) / (high - low))
    return _plain(made).clamp(0, 1) * (high - low) + low


def _plain(image: Any) -> Tensor:
    """A tensor without MONAI's metadata."""
    return torch.as_tensor(image.as_tensor() if hasattr(image, "as_tensor") else image).float()


def _modes(case: Mapping[str, Tensor]) -> list[str]:
    return ["nearest" if name == MASK else "bilinear" for name in case]


def _affine(case: Case, state: np.random.RandomState) -> Case:
    turn = float(np.deg2rad(DEGREES))
    transform = RandAffined(
        list(case), prob=0.3, rotate_range=[turn] * 3, scale_range=[ZOOM] * 3, mode=_modes(case), padding_mode="border"
    )
    transform.set_random_state(state=state)
    given: Any = {**case}  # MONAI's keys may be anything that hashes
    moved = transform(given)
    return {name: _plain(moved[name]) for name in case}


def _elastic(case: Case, state: np.random.RandomState) -> Case:
    """Knots on a coarse grid are moved at random, what lies between them follows smoothly."""
    if state.rand() >= 0.2:
        return case
    size = next(iter(case.values())).shape[1:]
    knots = [max(2, round(side / ELASTIC_KNOTS) + 1) for side in size]
    moved = torch.from_numpy(state.normal(0, ELASTIC_SHIFT, (1, 3, *knots))).float()
    shift = torch.nn.functional.interpolate(moved, size=size, mode="trilinear", align_corners=True)[0]
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in size), indexing="ij")
    at = [2 * (axis + by) / max(side - 1, 1) - 1 for axis, by, side in zip(axes, shift, size, strict=True)]
    grid = torch.stack(at[::-1], dim=-1)[None]  # grid_sample reads (x, y, z)
    return {
        name: torch.nn.functional.grid_sample(
            image[None], grid, mode="nearest" if name == MASK else "bilinear", padding_mode="border", align_corners=True
        )[0]
        for name, image in case.items()
    }


class _Scanner:
    """What another scanner does: a smooth bias over the volume, and another curve from matter to numbers."""

    def set_random_state(self, *, state: np.random.RandomState) -> _Scanner:
        self._state = state
        return self

    def __call__(self, image: Tensor) -> Tensor:
        for transform in (
            RandBiasField(degree=2, coeff_range=(0.0, 0.15), prob=0.3),
            RandHistogramShift(num_control_points=(5, 8), prob=0.3),
        ):
            transform.set_random_state(state=self._state)
            image = _plain(transform(image))
        return image


SPATIAL: dict[str, Callable[[Case, np.random.RandomState], Case]] = {"affine": _affine, "elastic": _elastic}
INTENSITY: dict[str, Callable[[], Any]] = {
    "blur": lambda: RandGaussianSmooth((0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
    "gamma": lambda: RandAdjustContrast(prob=0.3, gamma=(0.7, 1.5)),
    "low_resolution": lambda: RandSimulateLowResolution(prob=0.25, zoom_range=(0.5, 1.0)),
    "noise": lambda: RandGaussianNoise(prob=0.15, mean=0.0, std=NOISE),
    "scanner": _Scanner,
}
ORDER = ("affine", "elastic", "noise", "blur", "scanner", "low_resolution", "gamma")
assert {*ORDER} == {*VIEWS} == {*SPATIAL, *INTENSITY}
