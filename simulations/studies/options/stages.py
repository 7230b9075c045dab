"""A study's steps, made from its own options: how large they are, and which step file, adapter and task each one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import OmegaConf

from common.config.view import View


@dataclass
class StudySize:
    """How large the steps of a study are, and which arms run beside the federation."""

    kind: str = ""
    view: View = field(default_factory=lambda: View([6.0] * 3, [24] * 3, [24] * 3))  # of every step
    rounds: int = 8  # of every step
    epochs: int = 1  # passes over the training cases in a round
    batch: int = 4  # cases
    learning_rate: float = 2e-3  # AdamW's
    anneal: bool = False  # let it fall over the rounds along half a cosine
    augment: bool = False  # off lets frozen features be cached
    # What runs beside the federation, itself included.
    arms: list[str] = field(default_factory=lambda: ["federated", "centralized", "random backbone", "untrained"])


SIZED = ("batch", "learning_rate", "anneal", "epochs", "augment")  # of a step's training


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Args:
        step: a file of configs/step.
        adapter, task: what replaces the file's; empty: its own.
        values: options of the step itself.
    """

    step: str
    adapter: str = ""
    task: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def steps_node(stages: Mapping[str, Stage]) -> dict[str, Any]:
    """The steps as a YAML file would have them, each as large as the study's options say.

    Sizes are references to ``study.*``, so that a value for one step, in a file or on the command line, still wins.
    """
    chosen = [{f"/step@steps.{name}": stage.step} for name, stage in stages.items()]
    replaced = [
        {f"override /{group}@steps.{name}.{group}": choice}
        for name, stage in stages.items()
        for group, choice in (("adapter", stage.adapter), ("task", stage.task))
        if choice
    ]
    steps = {name: OmegaConf.merge(_size(), dict(stage.values)) for name, stage in stages.items()}
    return {"defaults": [*chosen, "_self_", *replaced], "steps": steps}


def _size() -> dict[str, Any]:
    return {
        "view": {f.name: f"${{study.view.{f.name}}}" for f in fields(View)},
        "rounds": "${study.rounds}",
        "training": {name: f"${{study.{name}}}" for name in SIZED},
    }
