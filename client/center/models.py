"""A step's model at a center: the frozen backbone, checked against the server's, with the step's parts on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from client.center.config import CenterConfig, own_files
from client.center.resident import MODELS, Resident, frozen_model, keep_model, kept, kept_base
from common.backbones.base import Backbone
from common.config.load import step_to_json, to_json
from common.errors import BackboneError, PolicyRefusal
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State
from common.store.bank import AdapterBank
from common.store.bases import Bases


def backbone_of(config: CenterConfig, order: Order) -> Backbone:
    """The order's frozen model from this center's own files, with the stages merged that its base is made of.

    Raises:
        PolicyRefusal: this center's own frozen model is not the server's.
        BaseMissing: the base grew by stages that are not in this center's vault.
        BackboneError: these stages make another base here.
    """
    spec = to_json(own_files(config, order.backbone))
    backbone, digest = frozen_model(spec, config.device)
    if digest == order.base:
        return backbone
    bases = bases_of(config)
    if digest != (order.root or digest) or (not order.root and bases.ref(order.base) is None):
        raise PolicyRefusal(
            "declined.base_mismatch",
            f"This center's frozen model is {digest[:12]}, the server's is {order.first_base[:12]}: "
            "install the same weights on both sides.",
        )
    return grown_model(bases, order, backbone, root=digest, key=(spec, config.device))


def grown_model(bases: Bases, order: Order, backbone: Backbone, *, root: str, key: tuple[str, str]) -> Backbone:
    """The base that an order names, made once a process from the root and the stages in the vault."""
    ref = bases.base_of(root, order.base)
    if order.merged and list(ref.merged) != order.merged:
        raise BackboneError(
            f"Base {order.base[:12]} is made of {len(ref.merged)} stages here and of {len(order.merged)} others in the "
            "order; nothing was done. Ask the coordinator which run it is of."
        )
    return kept_base((*key, order.base), lambda: bases.build(order.base, backbone, root_digest=root), around=backbone)


def bases_of(config: CenterConfig) -> Bases:
    """The bases that this center can make again, in its vault."""
    return Bases(AdapterBank(Path(config.vault) / config.code / "bases"))


def model_of(config: CenterConfig, order: Order) -> AdaptedModel:
    """The step's model with the order's state, on this center's device; a new one."""
    model = AdaptedModel(backbone_of(config, order), order.step, seed=order.seed)
    if order.state:
        model.load(order.state)
    return model.to(config.device).eval()


def resident_model(config: CenterConfig, order: Order) -> AdaptedModel:
    """`model_of` for the length of one message: built once a step and process, then only its state is exchanged."""
    backbone_of(config, order)
    model = _resident(config, order).model
    model.load(order.state)
    return model.eval()


def initial_state(config: CenterConfig, order: Order) -> State:
    """The step's state as the seed makes it, before anything is loaded."""
    backbone_of(config, order)
    return _resident(config, order).initial


def _resident(config: CenterConfig, order: Order) -> Resident:
    key = (to_json(order.backbone), order.base, step_to_json(order.step), order.seed, config.device)
    found = kept(MODELS, key)
    if found is None:
        model = model_of(config, replace(order, state={}))
        found = keep_model(key, model, around=backbone_of(config, order), device=config.device)
    return found
