"""A step's model at a center: the frozen backbone, checked against the server's, with the step's parts on it."""

from __future__ import annotations

from dataclasses import replace

from client.center.config import CenterConfig, own_files
from client.center.resident import MODELS, Resident, frozen_model, keep_model, kept
from common.backbones.base import Backbone
from common.config.load import step_to_json, to_json
from common.errors import PolicyRefusal
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State


def backbone_of(config: CenterConfig, order: Order) -> Backbone:
    """The order's frozen model from this center's own files. Raises PolicyRefusal when it is not the server's."""
    spec = own_files(config, order.backbone)
    backbone, digest = frozen_model(to_json(spec), config.device)
    if digest != order.base:
        raise PolicyRefusal(
            "declined.base_mismatch",
            f"This center's frozen model is {digest[:12]}, the server's is {order.base[:12]}: "
            "install the same weights on both sides.",
        )
    return backbone


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
