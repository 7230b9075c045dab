"""The arms of an acceptance: the same exact head on the frozen model, on random weights, and on raw values and blurs.

Heads are fitted to all cases in one place: what a federation of any centers fits is the same to 1e-9
(tests/simulations/comparison/recorded/test_exact_voxels_arm.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from client.data.dataset import CaseSet
from client.training.observation import observe
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone, Features, tensors_digest
from common.backbones.shapes import CONFIGS, ShapesUnet
from common.config.adapter import Adapter, VoxelLinearPart
from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State
from common.tasks import build_task
from simulations.comparison.patients import dice_of
from simulations.comparison.recorded.exact_voxels_arm import BLURRED, FROZEN, RIDGES, states_of
from simulations.pretraining.acceptance.cohorts import Parted
from simulations.pretraining.shapes.labels import label_map
from simulations.pretraining.shapes.rendering import render

PRETRAINED, AT_RANDOM, WITHOUT = "frozen", "random weights", "raw and blurs"
DRAWS = (0, 1, 2)  # of random weights; a patient's Dice is the mean over them
CALIBRATION = 10  # batches of renderings that set a random network's statistics
Arm = Callable[[Parted], np.ndarray]  # (patients,): mean Dice of each patient set aside


def arms(spec: BackboneSpec) -> Mapping[str, Arm]:
    """Every arm by name, for a backbone of kind ``shapes``."""
    return {
        PRETRAINED: lambda cohort: scores(cohort, load_backbone(spec), spec, FROZEN),
        AT_RANDOM: lambda cohort: np.mean(
            [scores(cohort, at_random(seed, spec.config), spec, FROZEN) for seed in DRAWS], axis=0
        ),
        WITHOUT: lambda cohort: scores(cohort, at_random(0, "small"), spec, BLURRED),  # whose features nobody reads
    }


def at_random(seed: int, config: str, *, side: int = 32) -> ShapesUnet:
    """The network at random weights. The statistics of its batch norms are set on random shapes, as pretraining would
    have left them: without them it would be a worse control than random weights are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ShapesUnet(CONFIGS[config])
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = None  # the mean over all batches
    generator = Generator().manual_seed(seed)
    net.train()
    with torch.no_grad():
        for _ in range(CALIBRATION):
            images = torch.stack([render(label_map(side, generator), generator) for _ in range(4)])[:, None]
            net.encode([net.patch_embed(images)], None)
    return net.freeze()


class Remembering(AdaptedModel):
    """Keeps what the frozen model says of each case: every ridge, threshold and score asks for it again. Of 32 cubes of
    48 voxels that is about a gigabyte."""

    def __init__(self, backbone: Backbone, step: Step, *, seed: int):
        super().__init__(backbone, step, seed=seed)
        self._said: dict[str, Features] = {}

    def encode(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Features:
        """As `AdaptedModel.encode`, once for equal inputs."""
        key = tensors_digest({**inputs, **{f"{name} is there": flag for name, flag in present.items()}})
        if key not in self._said:
            self._said[key] = super().encode(inputs, present)
        return self._said[key]


def scores(cohort: Parted, backbone: Backbone, spec: BackboneSpec, part: VoxelLinearPart) -> np.ndarray:
    """Fit the head, with the ridge that the choosing cases prefer, to all cases that are not set aside, and score it on
    those that are."""
    training = replace(cohort.step.training, batch=1)
    step = replace(cohort.step, adapter=Adapter({"voxels": part}), federation=RIDGES, training=training)
    model = Remembering(backbone, step, seed=1)
    order = Order(step, 1, 0, spec, backbone_digest(backbone), Split(), skip_unreadable=False, state=model.state())
    tried = {
        ridge: np.nanmean(_dice(order, model, state, cohort.choosing, "validation"))
        for ridge, state in states_of(order, model, [cohort.trained]).items()
    }
    chosen = max(tried, key=lambda ridge: (tried[ridge], ridge))
    federation = replace(RIDGES, penalty=chosen, penalties=[])
    refitted = replace(order, step=replace(step, federation=federation))
    [state] = states_of(refitted, model, [cohort.fitted]).values()
    return _dice(order, model, state, cohort.aside, "test")


def _dice(order: Order, model: AdaptedModel, state: State, cases: CaseSet, subset: str) -> np.ndarray:
    """Each case's Dice, averaged over its structures; NaN of a case without any, drawn or predicted."""
    model.load(state)
    asked = replace(order, state=state, subset=subset)
    return np.array([_mean(order.step, one) for one, _ in observe(asked, model, build_task(order.step.task), cases)])


def _mean(step: Step, observation: Mapping[str, np.ndarray]) -> float:
    found = dice_of(step, dict(observation))
    return sum(found.values()) / len(found) if found else float("nan")
