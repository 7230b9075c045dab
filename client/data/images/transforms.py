"""Random views of training cases, functions of a torch.Generator alone: modalities, mirror, intensities, windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from common.data.batch import CT, PET, Batch, parse_mode, volumes_of

SCALE, SHIFT = 0.1, 0.05  # largest change of intensity: relative, and in units of the scaled image
CT_RANGE = (-1.0, 1.0)
IGNORED = 255  # of a mask: nobody drew anything there


def drawn(batch: Batch, draw: Mapping[str, float], *, generator: torch.Generator) -> Batch:
    """The batch as one drawn mode shows it (PEMMA's modality draw); unchanged without a draw.

    A case that has no image of the drawn mode shows what the likeliest mode has for it, so that a center without PET
    trains on CT whatever is drawn.

    Args:
        draw: mode ("CT", "PET", "CT+PET") -> weight; a mode of weight 0 is never drawn.
    """
    modes = sorted(mode for mode, weight in draw.items() if weight > 0)
    if not modes:
        return batch
    weights = torch.tensor([draw[mode] for mode in modes], dtype=torch.float64)
    chosen = modes[int(torch.multinomial(weights, 1, generator=generator))]
    by_weight = sorted(modes, key=lambda mode: (-draw[mode], mode))
    undecided = torch.ones(len(batch), dtype=torch.bool)
    hidden = {modality: torch.zeros(len(batch), dtype=torch.bool) for modality in volumes_of(batch.inputs)}
    for mode in [chosen, *by_weight]:
        shown = [batch.present[m].cpu() for m in parse_mode(mode) if m in batch.present]
        able = undecided & torch.stack(shown).any(dim=0) if shown else torch.zeros_like(undecided)
        for modality in (m for m in hidden if m not in parse_mode(mode)):
            hidden[modality] |= able
        undecided &= ~able
    for modality, rows in hidden.items():
        batch = batch.without(modality, rows)
    return batch


def augment(batch: Batch, *, generator: torch.Generator) -> Batch:
    """Each case mirrored left-right with probability 0.5, images, ``mask`` and ``boxes`` alike, and intensities changed
    a little.

    A modality that a case lacks stays zero. The same numbers are drawn whatever is present, so a CT-only and a CT + PET
    step with the same generator see the same mirrored cases.
    """
    mirrored = torch.rand(len(batch), generator=generator) < 0.5
    inputs = dict(batch.inputs)
    for modality in volumes_of({CT, PET, *batch.inputs}):  # numbers for both are drawn whatever is there
        scale, shift = torch.rand(2, len(batch), generator=generator) * 2 - 1
        if modality in inputs:
            changed = inputs[modality] * _column(1 + SCALE * scale, inputs[modality])
            changed = changed + _column(SHIFT * shift * batch.present[modality].cpu(), changed)
            changed = changed.clamp(*CT_RANGE) if modality == CT else changed
            inputs[modality] = _mirror(changed, mirrored)
    target = dict(batch.target)
    if "mask" in target:
        target["mask"] = _mirror(target["mask"], mirrored)
    if "boxes" in target:
        target["boxes"] = mirrored_boxes(target["boxes"], target["size"], mirrored)
    return Batch(inputs, batch.present, target)


def mirrored_boxes(boxes: Tensor, size: Tensor, which: Tensor) -> Tensor:
    """Boxes (B, M, 7) of the cases that are mirrored left-right; rows of no box stay.

    Args:
        size: (B, 3), the volumes' sides.
        which: bool (B,).
    """
    width = size[:, 2:3].to(boxes)
    turned = boxes.clone()
    turned[..., 3], turned[..., 6] = width - boxes[..., 6], width - boxes[..., 3]
    real = which.to(boxes.device)[:, None] & (boxes[..., 0] >= 0)
    return torch.where(real[..., None], turned, boxes)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(-1, 1, 1, 1, 1)


def _mirror(volume: Tensor, which: Tensor) -> Tensor:
    return torch.where(which.to(volume.device).view(-1, 1, 1, 1, 1), volume.flip(-1), volume)


def random_window(
    images: Mapping[str, Tensor],
    mask: Tensor | None,
    *,
    window: Sequence[int],
    generator: torch.Generator,
    foreground: float = 0.5,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The same random window of every image and the mask; for training cases only, because it looks at the mask.

    Args:
        images, mask: (1, D, H, W), all of one shape, at least ``window`` on each axis.
        foreground: probability that the window is made to hold a random labeled voxel; else it lies anywhere.
    """
    volumes = {**images} if mask is None else {**images, "mask": mask}
    shape = next(iter(volumes.values())).shape[1:]
    start = _start(mask, shape, window, generator, foreground)
    box = (slice(None), *(slice(a, a + n) for a, n in zip(start, window, strict=True)))
    cut = {name: volume[box] for name, volume in volumes.items()}
    return {name: cut[name] for name in images}, cut.get("mask")


def _start(
    mask: Tensor | None, shape: Sequence[int], window: Sequence[int], generator: torch.Generator, foreground: float
) -> list[int]:
    wants_tumor = torch.rand((), generator=generator).item() < foreground
    voxels = _structures(mask[0]).nonzero() if wants_tumor and mask is not None else torch.empty(0, 3)
    if len(voxels) == 0:
        return [_integer(n - w + 1, generator) for n, w in zip(shape, window, strict=True)]
    voxel = voxels[_integer(len(voxels), generator)].tolist()
    starts = [v - _integer(w, generator) for v, w in zip(voxel, window, strict=True)]
    return [min(max(s, 0), n - w) for s, n, w in zip(starts, shape, window, strict=True)]


def _structures(mask: Tensor) -> Tensor:
    """Where a structure was drawn."""
    return (mask > 0) & (mask != IGNORED)


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))
