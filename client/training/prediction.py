"""From a batch to an output, with frozen features computed once and sliding windows; and from an output to a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from scipy import ndimage
from torch import Tensor

from common.backbones.base import Features
from common.data.batch import Batch, volumes_of
from common.model.adapted import AdaptedModel


def predict(model: AdaptedModel, batch: Batch, *, features: Features | None, window: list[int]) -> Tensor:
    """The model's output for whole volumes; larger than the window means MONAI's Gaussian sliding windows."""
    volumes = list(volumes_of(batch.inputs))
    shape = list(batch.inputs[volumes[0]].shape[2:]) if volumes else window
    if shape == list(window) or not volumes:
        if features is None:
            features = model.encode(batch.inputs, batch.present)
        return model.decode(features, batch.inputs, batch.present).float()
    stacked = torch.cat([batch.inputs[name] for name in volumes], dim=1)  # (B, M, D, H, W)

    outputs = [
        sliding_window_inference(stacked[row : row + 1], window, 4, _windows_of(model, batch, row), 0.5, "gaussian")
        for row in range(len(batch))
    ]
    return torch.cat([torch.as_tensor(output) for output in outputs])


def _windows_of(model: AdaptedModel, batch: Batch, row: int) -> Callable[[Tensor], Tensor]:
    """The model over windows of one case, which share its presence flags."""
    volumes = list(volumes_of(batch.inputs))

    def run(part: Tensor) -> Tensor:  # (windows, M, d, h, w)
        inputs = {name: part[:, i : i + 1] for i, name in enumerate(volumes)}
        present = {name: flag[row].expand(len(part)) for name, flag in batch.present.items()}
        return model(inputs, present).float()

    return run


def features_of(model: AdaptedModel, batch: Batch, *, kept: dict[int, Features], indices: list[int]) -> Features:
    """Frozen features of the cases at ``indices``, each computed at most once and kept on the CPU."""
    missing = [row for row, index in enumerate(indices) if index not in kept]
    for row in missing:
        one = Batch(*({k: v[row : row + 1] for k, v in d.items()} for d in (batch.inputs, batch.present, {})))
        with torch.no_grad():
            features = model.encode(one.inputs, one.present)
        kept[indices[row]] = Features(
            [level.cpu() for level in features.pyramid], {k: v.cpu() for k, v in features.pooled.items()}
        )
    device = next(iter(batch.inputs.values())).device
    rows = [kept[index] for index in indices]
    pyramid = [torch.cat(levels).to(device) for levels in zip(*(f.pyramid for f in rows), strict=True)]
    pooled = {name: torch.cat([f.pooled[name] for f in rows]).to(device) for name in rows[0].pooled}
    return Features(pyramid, pooled)


def mask_on(probabilities: np.ndarray, affine: np.ndarray, ct: Path) -> tuple[np.ndarray, float]:
    """The most probable structure at every voxel of a CT file, as it lies there, and a voxel's milliliters.

    Probabilities are interpolated linearly; beyond the grid that was predicted on there is background.

    Args:
        probabilities: (1 + S, D, H, W), background first.
        affine: (4, 4), from voxel (x, y, z) of that grid to mm in RAS.
        ct: the file whose shape and orientation the mask gets.
    """
    image: Any = nib.load(ct)
    shape = np.array(image.shape[:3])
    to_grid = np.asarray(np.linalg.inv(affine) @ image.affine).round(6)  # headers carry about seven digits
    low, high = _reach(np.linalg.inv(to_grid), probabilities.shape[:0:-1], shape)
    mask = np.zeros(shape, np.uint8)
    if (low < high).all():
        layers = [
            ndimage.affine_transform(
                values.transpose(2, 1, 0),
                to_grid[:3, :3],
                offset=to_grid[:3, :3] @ low + to_grid[:3, 3],
                output_shape=tuple(high - low),
                output=np.float32,
                order=1,
                mode="grid-constant",
                cval=float(structure == 0),
            )
            for structure, values in enumerate(probabilities)
        ]
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = np.argmax(layers, axis=0)
    return mask, float(abs(np.linalg.det(image.affine[:3, :3]))) / 1000


def _reach(to_ct: np.ndarray, size: Sequence[int], shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one voxel of a CT of ``shape`` that a grid of ``size`` voxels (x, y, z) can reach."""
    corners = np.array(np.meshgrid(*[(-1, n) for n in size])).reshape(3, -1).T
    places = nib.affines.apply_affine(to_ct, corners)
    low, high = np.floor(places.min(axis=0)).astype(int), np.ceil(places.max(axis=0)).astype(int) + 1
    return np.clip(low, 0, shape), np.clip(high, 0, shape)
