"""Every action that a center can be asked for, as one order and as the server's own work: for tables over all of them.

The names are those of the protocol's own lists (`POLICY.SUMS`, `Verbs`), so that a new action without a row here fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict

from client.app import app
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.methods import METHODS
from common.config.run import Run
from common.exact.step import BETA, MEAN, SCALE
from common.exact.thresholds import THRESHOLDS
from common.model.adapted import AdaptedModel
from common.protocol.comparing import comparing
from common.protocol.keepsakes import KEEPSAKES
from common.protocol.messages import Order, Reply
from common.protocol.wire import pack_order, unpack_reply
from common.tasks.cuts import GRID
from tests.helpers.small import VIEW

TRAIN, DESCRIBE, EVALUATE, ASK_SUMS = "train", "query.describe", "evaluate", "query.sums"
RUN_ID = "ab" * 16


@dataclass(frozen=True)
class Action:
    """A kind of message, the step that it is about, and what makes it this question.

    Args:
        sums: the kind of sums that it asks for, of the policy's list; empty: a state.
        over: the part of the split whose patients it is about.
        first: the action that must have been asked before.
        methods: kinds of methods that the step lists, with their defaults.
    """

    kind: str
    step: str
    sums: str
    over: str = "train"
    changes: dict[str, Any] = field(default_factory=dict)
    first: str = ""
    methods: tuple[str, ...] = ()


ACTIONS: dict[str, Action] = {
    "train": Action(TRAIN, "relapse", "", changes={"round": 1}),
    "describe": Action(DESCRIBE, "relapse", "labels"),
    "validation": Action(EVALUATE, "relapse", "scores", "validation", {"subset": "validation", "round": 1}),
    "scores": Action(EVALUATE, "relapse", "scores", "test", {"subset": "test"}),
    "curves": Action(EVALUATE, "relapse", "curves", "test", {"subset": "test", "threshold": 0.5}),
    "paired": Action(EVALUATE, "relapse", "paired", "test", {"subset": "test"}),
    "grid": Action(ASK_SUMS, "relapse", "grid", changes={"subset": GRID}),
    "keepsakes": Action(ASK_SUMS, "relapse", "keepsakes", changes={"subset": KEEPSAKES}, methods=("ewc",)),
    "moments": Action(ASK_SUMS, "relapse_exact", "moments"),
    "newton": Action(ASK_SUMS, "relapse_exact", "newton", changes={"round": 1}, first="moments"),
    "gram": Action(ASK_SUMS, "hpv_exact", "gram"),
    "thresholds": Action(ASK_SUMS, "tumour_ct", "thresholds", changes={"subset": THRESHOLDS, "round": 3}),
}
EXACT = (
    "grid",
    "keepsakes",
    "moments",
    "newton",
    "gram",
    "thresholds",
)  # sums over the training cases, refused or answered whole


@lru_cache(maxsize=4)
def run_of(step: str) -> Run:
    """A run with this step alone, on the tiny backbone."""
    voxels = ["adapter@steps.tumour_ct.adapter=exact_voxels", "federation@steps.tumour_ct.federation=newton"]
    chosen = {"relapse": ["curriculum=quickstart"], "tumour_ct": ["curriculum=smoke", *voxels]}
    run = compose_run([*chosen.get(step, ["curriculum=exact"]), "backbone=tiny", "name=small"])
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps = {step: run.steps[step]}
    own = run.steps[step]
    own.view, own.training.batch, own.training.epochs = VIEW, 2, 1
    if step == "relapse":
        own.rounds = 1
    if step == "tumour_ct":
        own.rounds, own.training.augment = 40, False
        part = own.adapter.parts["voxels"]
        part.voxels, part.levels, part.blurs = 100, [3], [1.0]
    return run


@lru_cache(maxsize=4)
def _start(step: str) -> Order:
    run = run_of(step)
    backbone = load_backbone(run.backbone)
    state = AdaptedModel(backbone, run.steps[step], seed=run.seed).state()
    digest = backbone_digest(backbone)
    return Order(run.steps[step], run.seed, 0, run.backbone, digest, run.data.split, state=state, run=RUN_ID)


def order_of(name: str, **changes: Any) -> Order:
    """The action's order, as a server sends it."""
    action = ACTIONS[name]
    order = replace(_start(action.step), **action.changes)
    order.step = replace(order.step, methods=[METHODS[kind]() for kind in action.methods])
    if name == "newton":
        values, columns = len(order.state["linear/mean"]), order.state["linear/weight"].shape[1]
        order.known = {MEAN: np.zeros(values), SCALE: np.ones(values), BETA: np.zeros((1, columns))}
    if name == "paired":
        order = comparing(order, order.step, state=order.state, known={})
    return replace(order, **changes)


def answered(hospital: Path, order: Order, kind: str) -> Reply:
    """What a hospital's own app answers to one message."""
    context = Context(run_id=1, node_id=7, node_config={"center": str(hospital)}, state=RecordDict(), run_config={})
    return unpack_reply(app(Message(pack_order(order), dst_node_id=7, message_type=kind), context).content)


def ask(hospital: Path, name: str, change: Callable[[Order], Order] = lambda order: order) -> Reply:
    """The same for an action, after what must come first."""
    action = ACTIONS[name]
    if action.first:
        ask(hospital, action.first, change)
    return answered(hospital, change(order_of(name)), action.kind)
