"""Tokens of named modalities: embedded, kept only where a case has the modality, and joined for the encoder.

Presence is a matter of rows: what an absent modality's tensor holds never reaches the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.backbones.base import SEQUENCE, Join
from common.data.batch import CT
from common.errors import BackboneError


@dataclass
class Tokens:
    """Patch tokens of a batch.

    Args:
        by_modality: (B, d, h, w, C) each, CT first if the batch holds it, zero in rows that lack the modality.
        present: bool (B,) by modality, the same keys.
    """

    by_modality: dict[str, Tensor]
    present: dict[str, Tensor]

    @property
    def seen(self) -> Tensor:
        """bool (B,): cases with at least one of the modalities."""
        return torch.stack(list(self.present.values())).any(dim=0)


@dataclass
class Sequence:
    """Cases that the encoder reads alike.

    Args:
        rows: which of the batch, int64 (b,); None: all of them in order.
        tokens: (b, d, h, w, C) each, to stand in one sequence; the first is what the pyramid is read from.
    """

    rows: Tensor | None
    tokens: list[Tensor]


def embed(
    ct_stem: nn.Module, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor], stems: Mapping[str, nn.Module]
) -> Tokens | None:
    """Tokens of every modality that the batch holds and that something embeds; None where there is no such one."""
    tokens, there = {}, {}
    for modality, stem in {CT: ct_stem, **stems}.items():
        if modality in inputs:
            there[modality] = presence(present, modality, inputs[modality])
            tokens[modality] = keep(stem(inputs[modality]), there[modality])
    if not tokens:
        return None
    grids = {modality: tuple(x.shape[1:]) for modality, x in tokens.items()}
    if len(set(grids.values())) > 1:
        said = ", ".join(f"{modality} {grid}" for modality, grid in grids.items())
        raise BackboneError(
            f"The stems make different token grids (depth, height, width, channels): {said}; give them the same patch."
        )
    return Tokens(tokens, there)


def joined(tokens: Tokens, join: Join | None) -> Tensor:
    """One set of tokens (B, d, h, w, C): the sum over modalities, or what ``join`` makes of them."""
    if join is not None:
        return join(tokens.by_modality, tokens.present)
    first, *others = tokens.by_modality.values()
    for other in others:
        first = first + other
    return first


def sequences(tokens: Tokens, join: Join | str | None) -> list[Sequence]:
    """What the encoder reads: the whole batch once, or, ``SEQUENCE``, once for each set of modalities that cases have.

    Grouping takes the place of an attention mask: a case is computed as if it were in a batch of its like.
    """
    if join != SEQUENCE:
        return [Sequence(None, [joined(tokens, callable_join(join))])]
    if len(tokens.by_modality) == 1:
        return [Sequence(None, list(tokens.by_modality.values()))]
    return list(_by_pattern(tokens))


def _by_pattern(tokens: Tokens) -> Iterator[Sequence]:
    flags = torch.stack(list(tokens.present.values()), dim=1)  # (B, modalities)
    patterns = flags.unique(dim=0)
    names = list(tokens.by_modality)
    for pattern in patterns:
        mine = [name for name, has in zip(names, pattern.tolist(), strict=True) if has] or names[:1]
        rows = None if len(patterns) == 1 else (flags == pattern).all(dim=1).nonzero()[:, 0]
        yield Sequence(rows, [x if rows is None else x[rows] for x in (tokens.by_modality[name] for name in mine)])


def batched(parts: list[Tensor], read: list[Sequence]) -> Tensor:
    """Results (b, ...) per sequence, put back into the batch's order (B, ...)."""
    if len(parts) == 1:
        return parts[0]
    order = torch.cat([sequence.rows for sequence in read if sequence.rows is not None])
    return torch.cat(parts)[order.argsort()]


def callable_join(join: Join | str | None) -> Join | None:
    """The join of a backbone that cannot take tokens beside each other. Raises BackboneError for a word."""
    if isinstance(join, str):
        raise BackboneError(
            f"This backbone cannot join modalities by '{join}': it attends along fixed axes or windows, or knows no "
            "such join; add the tokens (join none) or give a module that projects them to one set."
        )
    return join


def presence(present: Mapping[str, Tensor], modality: str, like: Tensor) -> Tensor:
    """bool (B,): the cases that have the modality; none where nothing says so."""
    if modality not in present:
        return torch.zeros(len(like), dtype=torch.bool, device=like.device)
    return present[modality]


def keep(x: Tensor, rows: Tensor) -> Tensor:
    """x with zeros in the rows that are not kept; kept rows unchanged to the bit."""
    if not torch.compiler.is_exporting() and bool(rows.all()):  # an exported program cannot ask what a tensor holds
        return x
    return torch.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, torch.zeros((), dtype=x.dtype, device=x.device))


def whole_patches(size: torch.Size | tuple[int, ...], multiple: tuple[int, int, int]) -> tuple[int, int, int]:
    """How often each side of a patch goes into a volume (depth, height, width).

    Raises:
        BackboneError: it is smaller than a patch, or not a whole number of them.
    """
    if len(size) != 3 or any(voxels < step or voxels % step for voxels, step in zip(size, multiple, strict=True)):
        raise BackboneError(
            f"A volume of {tuple(size)} voxels (depth, height, width) is not a whole number of patches of {multiple}; "
            "choose view.window (and view.size) as multiples of the backbone's patch."
        )
    d, h, w = (voxels // step for voxels, step in zip(size, multiple, strict=True))
    return d, h, w
