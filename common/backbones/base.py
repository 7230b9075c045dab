"""What a frozen backbone is: named inputs in, features out, and the places where adapters may attach."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.errors import BackboneError

Text = list[str]


@dataclass
class Features:
    """What a backbone gives for a batch of B cases.

    Args:
        pyramid: hidden states from shallow to deep as ``Backbone.levels`` says, each (B, C, d, h, w), before any
            quantisation; empty for a batch without volumes.
        pooled: embeddings by source: ``image`` (B, C_image) and, where a report was given, ``text`` (B, C_text).
            Rows of cases that lack the source are zero.
        shown: of masked modelling, by source, what was shown of it and what the encoder says of that
            (`common.model.masking`).
    """

    pyramid: list[Tensor]
    pooled: dict[str, Tensor]
    shown: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NativeView:
    """What the backbone was trained on; axes (depth, height, width)."""

    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    ct_hu: tuple[float, float]


class Tokenizer(Protocol):
    """Turns report texts into int64 (B, L), 0 = padding."""

    def __call__(self, texts: Text) -> Tensor: ...


@dataclass(frozen=True)
class Level:
    """One hidden state of a pyramid: its channels, and the (depth, height, width) voxels of one of its cells."""

    channels: int
    stride: tuple[int, int, int]


SEQUENCE = "beside"  # as `place` of a patch_embed part says it


class Join(Protocol):
    """Makes one set of tokens (B, d, h, w, C) of several modalities' tokens.

    ``tokens`` holds CT first, then the modalities with a stem that the batch holds, each (B, d, h, w, C) and zero in
    the rows that lack the modality; ``present`` has the same keys, each bool (B,).
    """

    def __call__(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor: ...


class Backbone(nn.Module):
    """Base of every backbone. Subclasses set the attributes below and implement `forward`.

    Attributes:
        sites: name -> regular expression that fully matches the names of the Linear/Conv modules adapters may target.
        blocks: site name -> number of blocks, for adapters that only touch the last k (block index is the first
            integer group ``(\\d+)`` of the regular expression).
        patch: (depth, height, width) voxels of one token.
        image_dim, text_dim: widths of ``Features.pooled``.
        native: the view of the pretraining data.
        tokenizer: the text side's own tokenizer.
        takes_sequence: whether `forward` accepts ``join=SEQUENCE``.
        stays: regular expression of tensors that no part may train or send: their changed rows would tell words.
    """

    sites: dict[str, str]
    blocks: dict[str, int]
    patch: tuple[int, int, int]
    image_dim: int
    text_dim: int
    native: NativeView
    tokenizer: Tokenizer
    takes_sequence: bool = False
    stays: str = ""

    @property
    def token_dim(self) -> int:
        """Channels of a token as a stem must make them."""
        return self.image_dim

    @property
    def levels(self) -> tuple[Level, ...]:
        """What ``Features.pyramid`` holds, from shallow to deep."""
        return (Level(self.image_dim, self.patch),) * 4

    @property
    def multiple(self) -> tuple[int, int, int]:
        """(depth, height, width): a volume's sides are whole multiples of these."""
        return self.patch

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        stems: Mapping[str, nn.Module] | None = None,
        *,
        join: Join | str | None = None,
        position: nn.Module | None = None,
    ) -> Features:
        """Features of a batch.

        Args:
            inputs, present: as in `common.data.batch.Batch`.
            stems: patch embeddings by modality; each maps (B, 1, D, H, W) to tokens (B, d, h, w, token_dim), without
                positions. A stem for CT takes the place of the backbone's own patch embedding (another resolution or
                patch: any token grid works); others are for modalities that the backbone has never seen.
            join: how the tokens of several modalities meet. None: added, each in the cases where it is present. A
                `Join`: whatever it returns goes on into the backbone. ``SEQUENCE``: the tokens of all modalities that
                a case has stand in one sequence, each set with the backbone's positions; the pyramid is then read
                at the CT tokens (at those of the first other modality where a case has no CT), ``pooled["image"]`` is
                the mean over all of them. Only where ``takes_sequence``.
            position: a task's own position parameters in place of the backbone's, from `own_position`.

        Raises:
            BackboneError: a volume does not fit ``multiple``, or the backbone cannot take what is asked.
        """
        raise NotImplementedError

    def ct_stem(self) -> nn.Module:
        """The CT patch embedding, for stems that start as a copy of it."""
        raise NotImplementedError

    def own_position(self, grid: tuple[int, int, int]) -> nn.Module:
        """A trainable copy of the position parameters, fit for a grid of (d, h, w) tokens, for `forward`.

        Raises:
            BackboneError: the backbone has no position parameters outside its blocks.
        """
        raise BackboneError(
            f"{type(self).__name__} has no position parameters of its own to adapt: its positions are relative, inside "
            "the attention windows; leave positions out of the stem."
        )

    def words_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, L, text_dim) of the words of tokenised texts (B, L), and bool (B, L) where there is one:
        neither padding nor what opens and closes a text.

        Raises:
            BackboneError: the backbone has no text side.
        """
        raise BackboneError(
            f"{type(self).__name__} embeds no words, so nothing can be asked of it by a prompt; use a frozen model "
            "with a text side, such as ct_clip."
        )

    def freeze(self) -> Backbone:
        """Evaluation mode, no gradients: what 'frozen' means everywhere in fedgraft."""
        self.eval()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        return self


def between_ends(ids: Tensor) -> Tensor:
    """bool (B, L): the tokens of texts (B, L), 0 = padding, but each one's first and last, which open and close it."""
    real = ids != 0
    last = real & ~torch.nn.functional.pad(real[:, 1:], (0, 1))
    inside = real & ~last
    inside[:, :1] = False
    return inside


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in name order: the identity of a set of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
