"""The frozen models by name, how one is loaded, and the digest that is its identity."""

from __future__ import annotations

from collections.abc import Callable

import torch

from common.backbones.base import Backbone, tensors_digest
from common.config.schema import BackboneSpec
from common.errors import BackboneError, UnknownName


def _ct_clip(spec: BackboneSpec) -> Backbone:
    from common.backbones import ct_clip

    configs = {"mini": ct_clip.MINI, "released": ct_clip.RELEASED}
    if spec.config not in configs:
        raise UnknownName("backbone configuration", spec.config, configs, where="backbone.config")
    backbone = ct_clip.CtClip(configs[spec.config], text_folder=spec.text_folder)
    if spec.random_seed is None:
        weights = spec.weights or (ct_clip.MINI_WEIGHTS if spec.config == "mini" else None)
        if weights is None:
            raise BackboneError(
                "The released CT-CLIP does not ship with fedgraft: set backbone.weights to your copy of CT-CLIP_v2.pt."
            )
        ct_clip.load_checkpoint(backbone, weights)
    return backbone


def _tiny(spec: BackboneSpec) -> Backbone:
    from common.backbones.tiny import TinyBackbone

    return TinyBackbone(spec.random_seed or 0)


BACKBONES: dict[str, Callable[[BackboneSpec], Backbone]] = {"ct_clip": _ct_clip, "tiny": _tiny}


def load_backbone(spec: BackboneSpec) -> Backbone:
    """The frozen backbone that a run asks for, on the CPU, in evaluation mode.

    With ``random_seed`` it has seeded random weights instead: the control that tells what pretraining is worth.
    PyTorch's own random state is left as it was.

    Raises:
        UnknownName: no such kind or configuration.
        BackboneError: the weights are missing or do not fit.
    """
    if spec.kind not in BACKBONES:
        raise UnknownName("backbone", spec.kind, BACKBONES, where="backbone.kind")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.random_seed or 0)
        return _with_text(BACKBONES[spec.kind](spec), spec).freeze()


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
