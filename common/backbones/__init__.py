"""The frozen models by name, how one is loaded, and the digest that is its identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from common.backbones.base import Backbone, tensors_digest
from common.config.schema import BackboneSpec
from common.errors import BackboneError, UnknownName

Config = TypeVar("Config")


def _ct_clip(spec: BackboneSpec) -> Backbone:
    from common.backbones import ct_clip

    config = _config({"mini": ct_clip.MINI, "released": ct_clip.RELEASED}, spec)
    return ct_clip.CtClip(config, text_folder=spec.text_folder, projection=spec.projection)


def _ct_clip_weights(backbone: Backbone, spec: BackboneSpec) -> None:
    from common.backbones import ct_clip

    assert isinstance(backbone, ct_clip.CtClip)
    weights = spec.weights or (ct_clip.MINI_WEIGHTS if spec.config == "mini" else None)
    ct_clip.load_checkpoint(backbone, _path(weights, "The released CT-CLIP", "CT-CLIP_v2.pt"))


def _unetr(spec: BackboneSpec) -> Backbone:
    from common.backbones import unetr

    config = _config(unetr.CONFIGS, spec)
    if spec.image_size is not None:
        config = replace(config, image_size=_triple(spec.image_size, config.patch))
    return unetr.Unetr(config)


def _unetr_weights(backbone: Backbone, spec: BackboneSpec) -> None:
    from common.backbones import unetr

    assert isinstance(backbone, unetr.Unetr)
    unetr.load_checkpoint(backbone, _path(spec.weights, "UNETR", "a MONAI UNETR checkpoint"))


def _swin_unetr(spec: BackboneSpec) -> Backbone:
    from common.backbones import swin_unetr

    config = _config(swin_unetr.CONFIGS, spec)
    if spec.feature_size is not None:
        if spec.feature_size < 12 or spec.feature_size % 12:
            raise BackboneError(f"backbone.feature_size {spec.feature_size} is not a positive multiple of 12.")
        config = replace(config, feature_size=spec.feature_size)
    return swin_unetr.SwinUnetr(config)


def _swin_unetr_weights(backbone: Backbone, spec: BackboneSpec) -> None:
    from common.backbones import swin_unetr

    assert isinstance(backbone, swin_unetr.SwinUnetr)
    swin_unetr.load_checkpoint(backbone, _path(spec.weights, "Swin UNETR", "model_swinvit.pt or SuPreM's checkpoint"))


def _tiny(spec: BackboneSpec) -> Backbone:
    from common.backbones.tiny import TinyBackbone

    return TinyBackbone(spec.random_seed or 0)


@dataclass(frozen=True)
class Kind:
    """A kind of backbone.

    Args:
        build: the architecture, at weights from torch's global generator.
        load: puts the checkpoint's weights in; None where there is no checkpoint.
        reads: options of the spec that only some kinds read.
    """

    build: Callable[[BackboneSpec], Backbone]
    load: Callable[[Backbone, BackboneSpec], None] | None
    reads: frozenset[str] = frozenset()


BACKBONES: dict[str, Kind] = {
    "ct_clip": Kind(_ct_clip, _ct_clip_weights, frozenset({"text_folder", "projection", "weights"})),
    "swin_unetr": Kind(_swin_unetr, _swin_unetr_weights, frozenset({"feature_size", "weights"})),
    "tiny": Kind(_tiny, None),
    "unetr": Kind(_unetr, _unetr_weights, frozenset({"image_size", "weights"})),
}


def build_backbone(spec: BackboneSpec) -> Backbone:
    """The architecture that a spec names, without its weights; under ``torch.device("meta")`` nothing is allocated.

    Raises:
        UnknownName: no such kind or configuration.
        BackboneError: an option that this kind does not read, or a size that it cannot have.
    """
    if spec.kind not in BACKBONES:
        raise UnknownName("backbone", spec.kind, BACKBONES, where="backbone.kind")
    kind, plain = BACKBONES[spec.kind], BackboneSpec()
    options = frozenset().union(*(other.reads for other in BACKBONES.values()))
    idle = [name for name in sorted(options - kind.reads) if getattr(spec, name) != getattr(plain, name)]
    if idle:
        raise BackboneError(
            f"Backbone {spec.kind} does not read {', '.join(f'backbone.{name}' for name in idle)}; leave it out. It "
            f"reads: {', '.join(sorted(kind.reads)) or 'none of these options'}."
        )
    return kind.build(spec)


def load_backbone(spec: BackboneSpec) -> Backbone:
    """The frozen backbone that a run asks for, on the CPU, in evaluation mode.

    With ``random_seed`` it has seeded random weights instead: the control that tells what pretraining is worth.
    PyTorch's own random state is left as it was.

    Raises:
        UnknownName: no such kind or configuration.
        BackboneError: the weights are missing, do not fit, or are not those of ``spec.digest``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.random_seed or 0)
        backbone = build_backbone(spec)
    load = BACKBONES[spec.kind].load
    if spec.random_seed is None:
        if load is not None:
            load(backbone, spec)
        _check_digest(backbone, spec)
    return backbone.freeze()


def _check_digest(backbone: Backbone, spec: BackboneSpec) -> None:
    if spec.digest is not None and (found := backbone_digest(backbone)) != spec.digest:
        raise BackboneError(
            f"The weights of backbone {spec.kind} have the digest {found}, not backbone.digest {spec.digest}; get the "
            "file that the run was planned with, or correct the digest."
        )


def _config(configs: Mapping[str, Config], spec: BackboneSpec) -> Config:
    if spec.config not in configs:
        raise UnknownName("backbone configuration", spec.config, configs, where="backbone.config")
    return configs[spec.config]


def _path(weights: str | Path | None, name: str, example: str) -> str | Path:
    if weights is None:
        raise BackboneError(
            f"{name} does not ship with fedgraft: set backbone.weights to your copy of {example}, or, for the control "
            "at random weights, backbone.random_seed."
        )
    return weights


def _triple(size: Sequence[int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    from common.backbones.tokens import whole_patches

    whole_patches(tuple(size), patch)
    d, h, w = size
    return d, h, w


def backbone_digest(backbone: Backbone) -> str:
    """SHA-256 over every parameter and buffer: the identity of the base that centers must share."""
    return tensors_digest(backbone.state_dict())
