"""Options of the studies of continual learning: what arrives with each step, which arms, and how large each step is."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulations.studies.options.stages import Stage, StudySize

VLM_ARMS = ("specialized", "joint", "joint k-shot", "sequential", "rehearsal")
LEARN = "learn"  # the step that every step of every arm is a copy of


@dataclass
class ContinualStudy(StudySize):
    """What every study of continual learning is told."""

    seeds: list[int] = field(default_factory=lambda: [1])  # each a run of every arm
    # Domain-incremental: the centers that arrive with each step.
    arrivals: list[list[str]] = field(default_factory=lambda: [["CHUM"], ["CHUS"], ["MDA"]])
    memory: int = 6  # rehearsal: cases in the memory of each earlier center
    shots: int = 4  # cases of each center in the joint k-shot arm
    shares: list[float] = field(
        default_factory=list
    )  # of what arrives, on which each step is tried beside: [0.1, 0.25]
    strengths: dict[str, float] = field(default_factory=dict)  # method -> its strength, in the place of its default


@dataclass
class ContinualMethodsStudy(ContinualStudy):
    """Methods that keep what was known, on one adapter that centers train one after another."""

    kind: str = "continual_methods"
    # Methods, and beside them joint and dedicated.
    arms: list[str] = field(default_factory=lambda: ["sequential", "joint", "rehearsal", "ewc", "projection"])


@dataclass
class ContinualVlmStudy(ContinualStudy):
    """The continual vision-language study: text-prompted detection, federated."""

    kind: str = "continual_vlm"
    # Methods, and beside them joint, joint k-shot and specialized.
    arms: list[str] = field(default_factory=lambda: [*VLM_ARMS])
    # Task-incremental: the structures that each step learns to find, in order; the brain is far from all others.
    tasks: list[str] = field(default_factory=lambda: ["GTVp", "GTVn", "brain"])


def methods_stages() -> dict[str, Stage]:
    """The step that centers go on with."""
    return {LEARN: Stage("tumour_ct", "decoder_lora")}


def vlm_stages() -> dict[str, Stage]:
    """The step that centers go on with."""
    return {LEARN: Stage("grounding")}
