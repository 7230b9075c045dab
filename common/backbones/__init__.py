"""The frozen models by name, how one is loaded, and the digest that is its identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from common.backbones.base import Backbone, tensors_digest
from common.backbones.kind import Kind
from common.config.backbones import SHIPPED
from common.config.run import BackboneSpec
from common.errors import BackboneError, UnknownName
from common.plugins import Registry
from common.seeding import seed_torch

Config = TypeVar("Config")


def _ct_clip(spec: BackboneSpec) -> Backbone:
    from common.backbones import ct_clip

    config = _config({"mini": ct_clip.MINI, "released": ct_clip.RELEASED}, spec)
    return ct_clip.CtClip(config, text_folder=spec.text_folder, projection=spec.projection)


def _load_ct_clip(backbone: Backbone, path: str | Path) -> None:
    from common.backbones import ct_clip

    assert isinstance(backbone, ct_clip.CtClip)
    ct_clip.load_checkpoint(backbone, path)


def _unetr(spec: BackboneSpec) -> Backbone:
    from common.backbones import unetr

    config = _config(unetr.CONFIGS, spec)
    if spec.image_size is not None:
        config = replace(config, image_size=_triple(spec.image_size, config.patch))
    return unetr.Unetr(config)


def _load_unetr(backbone: Backbone, path: str | Path) -> None:
    from common.backbones import unetr

    assert isinstance(backbone, unetr.Unetr)
    unetr.load_checkpoint(backbone, path)


def _swin_unetr(spec: BackboneSpec) -> Backbone:
    from common.backbones import swin_unetr

    config = _config(swin_unetr.CONFIGS, spec)
    if spec.feature_size is not None:
        if spec.feature_size < 12 or spec.feature_size % 12:
            raise BackboneError(f"backbone.feature_size {spec.feature_size} is not a positive multiple of 12.")
        config = replace(config, feature_size=spec.feature_size)
    return swin_unetr.SwinUnetr(config)


def _load_swin_unetr(backbone: Backbone, path: str | Path) -> None:
    from common.backbones import swin_unetr

    assert isinstance(backbone, swin_unetr.SwinUnetr)
    swin_unetr.load_checkpoint(backbone, path)


def _shapes(spec: BackboneSpec) -> Backbone:
    from common.backbones import shapes

    return shapes.ShapesUnet(_config(shapes.CONFIGS, spec))


def _load_shapes(backbone: Backbone, path: str | Path) -> None:
    from common.backbones import shapes

    assert isinstance(backbone, shapes.ShapesUnet)
    shapes.load_checkpoint(backbone, path)


def _dimension_free(spec: BackboneSpec) -> Backbone:
    from common.backbones.vision import dimension_free

    return dimension_free.DimensionFree(_config(dimension_free.CONFIGS, spec), text_folder=spec.text_folder)


def _load_dimension_free(backbone: Backbone, path: str | Path) -> None:
    from common.backbones.vision import dimension_free

    assert isinstance(backbone, dimension_free.DimensionFree)
    dimension_free.load_checkpoint(backbone, path)


def _tiny(spec: BackboneSpec) -> Backbone:
    from common.backbones.tiny import TinyBackbone

    return TinyBackbone(spec.random_seed or 0)


BACKBONES: Registry[Kind] = Registry(
    "backbone",
    "build",
    {
        "ct_clip": Kind(
            _ct_clip,
            _load_ct_clip,
            "CT-CLIP_v2.pt (CT-RATE)",
            frozenset({"text_folder", "projection", "weights"}),
            {"released": "CC-BY-NC-SA-4.0"},
        ),
        "dimension_free": Kind(
            _dimension_free,
            _load_dimension_free,
            "a base that curriculum=medcoss trained",
            frozenset({"text_folder", "weights"}),
        ),
        "shapes": Kind(
            _shapes, _load_shapes, "shapes.safetensors (python -m simulations pretrain shapes)", frozenset({"weights"})
        ),
        "swin_unetr": Kind(
            _swin_unetr,
            _load_swin_unetr,
            "model_swinvit.pt (MONAI) or supervised_suprem_swinunetr_2100.pth (SuPreM)",
            frozenset({"feature_size", "weights"}),
        ),
        "tiny": Kind(_tiny),
        "unetr": Kind(_unetr, _load_unetr, "a MONAI UNETR checkpoint", frozenset({"image_size", "weights"})),
    },
)


def build_backbone(spec: BackboneSpec) -> Backbone:
    """The architecture that a spec names, without its weights; under ``torch.device("meta")`` nothing is allocated.

    Raises:
        UnknownName: no such kind or configuration.
        BackboneError: an option that this kind does not read, or a size that it cannot have.
    """
    kind, plain = _kind(spec), BackboneSpec()
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
    checkpoint = _checkpoint(spec)
    with torch.random.fork_rng(devices=[]):
        seed_torch(spec.random_seed or 0)
        backbone = build_backbone(spec)
    load = BACKBONES[spec.kind].load
    if checkpoint is not None and load is not None:
        load(backbone, checkpoint)
    if spec.random_seed is None:
        _check_digest(backbone, spec)
    return _with_text(backbone, spec).freeze()


def needs_weights(spec: BackboneSpec) -> bool:
    """Whether its weights are neither drawn from a seed nor part of fedgraft. Raises UnknownName: no such kind."""
    is_shipped = (spec.kind, spec.config) == SHIPPED
    return _kind(spec).load is not None and spec.random_seed is None and not is_shipped


def _checkpoint(spec: BackboneSpec) -> str | Path | None:
    """The file to load, known before anything is built; None where weights come from a seed."""
    kind = _kind(spec)
    if kind.load is None or spec.random_seed is not None:
        return None
    if spec.weights is None and not needs_weights(spec):
        from common.backbones.ct_clip import MINI_WEIGHTS

        return MINI_WEIGHTS
    if spec.weights is None:
        with torch.device("meta"):
            build_backbone(spec)  # a wrong name or size is the better complaint, and costs nothing here
        raise BackboneError(
            f"Backbone {spec.kind} {spec.config} does not ship with fedgraft: set backbone.weights to your copy of "
            f"{kind.example}, or, for the control at random weights, backbone.random_seed."
        )
    return spec.weights


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


def _kind(spec: BackboneSpec) -> Kind:
    if spec.kind not in BACKBONES:
        raise UnknownName("backbone", spec.kind, BACKBONES, where="backbone.kind")
    return BACKBONES[spec.kind]


def _triple(size: Sequence[int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    from common.backbones.tokens import whole_patches

    whole_patches(tuple(size), patch)
    d, h, w = size
    return d, h, w


def _with_text(backbone: Backbone, spec: BackboneSpec) -> Backbone:
    """The backbone with the text side that the run asks for."""
    if spec.text == "own":
        return backbone
    if spec.text != "ngrams":
        raise UnknownName("text side", spec.text, ("ngrams", "own"), where="backbone.text")
    from common.backbones.ngrams import HashedText

    return HashedText(backbone)


def backbone_digest(backbone: Backbone) -> str:
    """SHA-256 over every parameter and buffer: the identity of the base that centers must share."""
    return tensors_digest(backbone.state_dict())
