"""Grounding: what a step asks for in words, and the readout that compares the frozen model's cells with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from common.adapters.grounding import GroundingHead
from common.backbones.base import Backbone, Features
from common.config.options import ATTRIBUTES
from common.config.step import Step
from common.errors import AdapterError

GROUNDING = "grounding"
Tensors = Mapping[str, Tensor]


def phrase_of(spec: Any, structure: str) -> str:
    """What a structure is asked for by: "pink color oval bump in rectum", or the phrase alone."""
    phrase = spec.phrases.get(structure) or structure
    if spec.prompts != ATTRIBUTES:
        return phrase
    color, shape, location = [*spec.attributes.get(structure, []), "", "", ""][:3]
    said = [f"{color} color" if color else "", shape, phrase, f"in {location}" if location else ""]
    return " ".join(part for part in said if part)


@dataclass(frozen=True)
class GroundingReadout:
    """The head on one level of the pyramid and on the words of each structure's phrase."""

    step: str
    head: nn.Module
    backbone: Backbone
    phrases: Sequence[str]
    level: int
    reads_features = True

    def read(self, features: Features, inputs: Tensors, present: Tensors) -> Tensor:
        """Scores of words and boxes by cell (B, S x L + sides, d, h, w). Raises AdapterError without volumes."""
        if not features.pyramid:
            raise AdapterError(f"Step '{self.step}' looks for boxes, but a batch holds {', '.join(inputs)} only.")
        cells = features.pyramid[self.level]
        ids = self.backbone.tokenizer(list(self.phrases)).to(cells.device)
        words, real = self.backbone.words_of(ids)
        return self.head(cells, words, real)


def build_grounding(backbone: Backbone, step: Step) -> GroundingHead:
    """The head of a step. Raises AdapterError for a level that the pyramid does not have."""
    levels, spec = backbone.levels, step.task
    if not -len(levels) <= spec.level < len(levels):
        raise AdapterError(
            f"task.level is {spec.level}, and the frozen model's pyramid has {len(levels)} levels; use "
            f"{-len(levels)} to {len(levels) - 1}."
        )
    return GroundingHead(levels[spec.level].channels, backbone.text_dim, width=spec.width, sides=spec.sides)


def grounding_readout(step: Step, backbone: Backbone, head: nn.Module) -> GroundingReadout:
    """The end of a step's model."""
    phrases = [phrase_of(step.task, name) for name in step.task.structures]
    return GroundingReadout(step.name, head, backbone, phrases, step.task.level)
