"""Masking: what masked modelling shows of a batch, and how far the rest is restored.

Images lose patches before the encoder, which sees the others alone; reports have words replaced. In training what is
hidden is drawn from torch's global generator, in evaluation it is the same for every case: a score depends neither on
the order of cases nor on who computes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.base import Backbone, Features
from common.data.sources import HIDDEN, PROJECTION, SLICES, Source

MASKED = "masked"
MASK, SPECIAL = 4, 5  # of the vocabulary: [MASK], and how many tokens before the first word
SEED = 20_241  # of what evaluation hides
LONGEST = 4096  # numbers are drawn for so many, so that a report's do not depend on how long others are
EPSILON = 1e-6
IGNORED = 0  # padding: of a report's words to restore, those that were not hidden


@dataclass(frozen=True)
class View:
    """A batch of one source as the encoder is to see it.

    Args:
        values: images (B, 1, H, W), volumes (B, 1, D, H, W) or words (B, L) with the hidden ones replaced.
        seen: places of the seen patches, int64 (B, V); None for reports.
    """

    values: Tensor
    seen: Tensor | None


@dataclass(frozen=True)
class Shown:
    """A view, the encoder's tokens of it, and the words (B, L) that were hidden, 0 elsewhere."""

    view: View
    tokens: Tensor
    words: Tensor | None = None


@dataclass(frozen=True)
class Masking:
    """How a masked step's inputs enter the encoder. Holds the decoders to know whether they are in training.

    Args:
        hidden: share that is hidden; 0: the form's own.
    """

    sources: Sequence[Source]
    hidden: float
    decoders: nn.Module

    def encode(self, backbone: Backbone, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Features:
        """By source, what the encoder says of a masked view of each case."""
        shown: dict[str, Shown] = {}
        for source in (s for s in self.sources if s.modality in inputs):
            in_training = self.decoders.training
            values = as_form(inputs[source.modality], source, in_training=in_training)
            noise = drawn_noise(values, source, backbone.patch[0], in_training=in_training)
            view, words = hide(values, source, noise=noise, share=self.hidden)
            shown[source.name] = Shown(view, look(backbone, view), words)
        return Features([], {}, dict(shown))


@dataclass(frozen=True)
class MaskedReadout:
    """The decoders, each on the tokens of its source: (B, S, 3), see `common.tasks.masked`."""

    decoders: nn.Module
    sources: Sequence[Source]
    reads_features = True

    def read(self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """By source and case: the loss, how much is restored, and whether the case has the source (1, else all 0)."""
        some = next(iter(inputs.values()))
        columns = []
        for source in self.sources:
            shown = features.shown.get(source.name)
            if shown is None:
                columns.append(torch.zeros(len(some), 3, device=some.device))
                continue
            decoder = self.decoders[source.name]  # type: ignore[index]
            found = torch.stack([*_restored(decoder, shown), torch.ones(len(some), device=some.device)], dim=1)
            columns.append(torch.where(present[source.modality][:, None], found, torch.zeros_like(found)))
        return torch.stack(columns, dim=1)


def as_form(values: Tensor, source: Source, *, in_training: bool) -> Tensor:
    """A modality in the form of its source: a volume's slice (in evaluation the middle one), or its projection."""
    if source.form == PROJECTION:
        return values.amax(dim=3)
    if source.form != SLICES:
        return values
    depth = values.shape[2]
    places = torch.randint(depth, (len(values),)) if in_training else torch.full((len(values),), depth // 2)
    return values[torch.arange(len(values)), :, places]


def hide(values: Tensor, source: Source, *, noise: Tensor, share: float) -> tuple[View, Tensor | None]:
    """The masked view of values in the form of their source, and of a report the words that it hides."""
    share = share or HIDDEN[source.form]
    if source.is_report:
        replaced, words = hide_words(values, noise=noise, share=share)
        return View(replaced, None), words
    return View(values, seen_places(noise, share=share)), None


def seen_places(noise: Tensor, *, share: float) -> Tensor:
    """Places of the patches that are left when a share is hidden, int64 (B, V): those of least noise (B, N), one at
    least."""
    left = max(1, int(noise.shape[1] * (1 - share)))
    return noise.argsort(dim=1)[:, :left]


def hide_words(ids: Tensor, *, noise: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A report's words (B, L) with those of noise below the share replaced by [MASK], and the words that were (0
    elsewhere). Of a report with words, the one of least noise is always hidden."""
    noise = noise.masked_fill(ids < SPECIAL, 2.0)
    least = F.one_hot(noise.argmin(dim=1), ids.shape[1]).bool()
    hidden = ((noise < share) | least) & (ids >= SPECIAL)
    return ids.masked_fill(hidden, MASK), ids.masked_fill(~hidden, IGNORED)


def look(backbone: Backbone, view: View) -> Tensor:
    """The encoder's tokens of a view."""
    if view.seen is None and view.values.ndim == 2:
        return backbone.look_at_report(view.values)  # type: ignore[operator]
    return backbone.look_at(view.values, view.seen)  # type: ignore[operator]


def patches_of(image: Tensor, patch: int) -> Tensor:
    """(B, N, P): the values of each patch, in the order of the encoder's tokens."""
    batch, _, *sides = image.shape
    cut = [size for side in sides for size in (side // patch, patch)]
    axes = range(1, 1 + len(cut))
    order = [0, *(a for a in axes if a % 2 == 1), *(a for a in axes if a % 2 == 0)]
    return image.reshape(batch, *cut).permute(order).reshape(batch, -1, patch ** len(sides))


def patch_errors(prediction: Tensor, target: Tensor, *, normalized: bool = True) -> Tensor:
    """Mean squared error of each patch (B, N), its target normalized by its own mean and (unbiased) variance."""
    if normalized:
        mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        target = (target - mean) / (variance + EPSILON) ** 0.5
    return (prediction - target).square().mean(dim=-1)


def masked_loss(prediction: Tensor, target: Tensor, hidden: Tensor, *, normalized: bool = True) -> Tensor:
    """Mean error (B,) over the hidden patches (B, N), which are 1; what was seen does not count."""
    errors = patch_errors(prediction, target, normalized=normalized)
    return torch.where(hidden.bool(), errors, torch.zeros_like(errors)).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)


def hidden_of(seen: Tensor, patches: int) -> Tensor:
    """(B, N): 1 where a patch was not seen."""
    return torch.ones(len(seen), patches, device=seen.device).scatter(1, seen, 0.0)


def _restored(decoder: nn.Module, shown: Shown) -> tuple[Tensor, Tensor]:
    """Loss and share that is restored, (B,) each."""
    if shown.words is not None:
        return _restored_words(decoder(shown.tokens).float(), shown.words[:, : shown.tokens.shape[1]])
    seen, image = shown.view.seen, shown.view.values
    assert seen is not None  # an image's view says what is seen
    prediction = decoder(shown.tokens, seen).float()
    side = round(prediction.shape[-1] ** (1 / (image.ndim - 2)))
    loss = masked_loss(prediction, patches_of(image.float(), side), hidden_of(seen, prediction.shape[1]))
    return loss, (1 - loss.detach()).clamp(min=0)  # of unit variance: each patch's mean alone has a loss of 1


def _restored_words(logits: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    hidden = words != IGNORED
    number = hidden.sum(dim=1).clamp(min=1)
    each = F.cross_entropy(logits.transpose(1, 2), words, ignore_index=IGNORED, reduction="none")
    right = (logits.argmax(dim=2) == words) & hidden
    return each.sum(dim=1) / number, right.sum(dim=1) / number


def drawn_noise(values: Tensor, source: Source, patch: int, *, in_training: bool) -> Tensor:
    """(B, N); in evaluation the same for every case."""
    number = values.shape[1]
    if not source.is_report:
        number = 1
        for side in values.shape[2:]:
            number *= side // patch
    if in_training:
        return torch.rand(len(values), number).to(values.device)
    fixed = torch.rand(1, max(number, LONGEST), generator=torch.Generator().manual_seed(SEED))[:, :number]
    return fixed.expand(len(values), -1).to(values.device)
