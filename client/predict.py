"""From a batch to an output: frozen features computed once, and sliding windows where the volume is larger."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from common.backbones.base import Features
from common.batch import VOLUMES, Batch
from common.model import AdaptedModel


def predict(model: AdaptedModel, batch: Batch, *, features: Features | None, window: list[int]) -> Tensor:
    """The model's output for whole volumes; larger than the window means MONAI's Gaussian sliding windows."""
    volumes = [name for name in batch.inputs if name in VOLUMES]
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
    volumes = [name for name in batch.inputs if name in VOLUMES]

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
