"""From a batch to an output, with frozen features computed once and sliding windows; and from an output to a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from client.data.images.nifti import in_mm
from client.data.images.own_grid import Lattice, answer_on
from client.training.tidying import tidied
from client.training.windows import mirrorings
from common.backbones.base import Features
from common.config.step import Step
from common.data.batch import Batch, is_volume, volumes_of
from common.model.adapted import AdaptedModel


def answered(model: AdaptedModel, batch: Batch, step: Step, *, features: Features | None = None) -> Tensor:
    """The step's answer for whole volumes: windows, mirrored views and rules as its view and its task declare them."""
    view = step.view
    output = predict(
        model, batch, features=features, window=view.window, overlap=view.overlap, mirrors=tuple(view.mirrors)
    )
    return tidied(output, step)


def predict(
    model: AdaptedModel,
    batch: Batch,
    *,
    features: Features | None,
    window: list[int],
    overlap: float = 0.5,
    mirrors: Sequence[str] = (),
) -> Tensor:
    """The model's output for whole volumes; larger than the window means MONAI's Gaussian sliding windows.

    Args:
        features: of the batch as it is, where they were computed before.
        overlap: of neighboring windows, as a share of a side.
        mirrors: axes of `AXES`; the mean is over all combinations of mirrored ones, each mirrored back.
    """
    outputs = [_predict(model, batch, features=features, window=window, overlap=overlap)]
    for flipped in ([2 + axis for axis in axes] for axes in mirrorings(mirrors)[1:]):
        there = {m: x.flip(flipped) if is_volume(m) else x for m, x in batch.inputs.items()}
        mirrored = Batch(there, batch.present, batch.target)
        outputs.append(_predict(model, mirrored, features=None, window=window, overlap=overlap).flip(flipped))
    return outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(dim=0)


def _predict(
    model: AdaptedModel, batch: Batch, *, features: Features | None, window: list[int], overlap: float
) -> Tensor:
    volumes = list(volumes_of(batch.inputs))
    shape = list(batch.inputs[volumes[0]].shape[2:]) if volumes else window
    if shape == list(window) or not volumes:
        if features is None:
            features = model.encode(batch.inputs, batch.present)
        return model.decode(features, batch.inputs, batch.present).float()
    stacked = torch.cat([batch.inputs[name] for name in volumes], dim=1)  # (B, M, D, H, W)

    outputs = [
        sliding_window_inference(stacked[row : row + 1], window, 4, _windows_of(model, batch, row), overlap, "gaussian")
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

    Probabilities are interpolated linearly; beyond the grid that was predicted on there is background. A test case is
    scored on the same mask (`client.training.observation`).

    Args:
        probabilities: (1 + S, D, H, W), background first.
        affine: (4, 4), from voxel (x, y, z) of that grid to mm in RAS.
        ct: the file whose shape and orientation the mask gets.
    """
    image: Any = nib.load(ct)
    x, y, z = image.shape[:3]
    lattice = Lattice((x, y, z), in_mm(image))
    mask = answer_on(probabilities, affine, lattice).within((0, 0, 0), lattice.shape)
    return mask, float(abs(np.linalg.det(lattice.affine[:3, :3]))) / 1000
