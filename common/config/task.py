"""What a step learns: classification, grounding, prognosis, segmentation or what is masked, with its options."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.plugins import Registry


@dataclass
class ClassificationTask:
    """Which findings a case shows, or which class of one target it is of."""

    kind: str = "classification"
    classes: list[str] = field(default_factory=list)  # findings, or the names of one target's classes in order
    form: str = "multi_label"  # binary (one name), multi_label, multi_class, or ordinal (stages)
    target: str = "findings"  # findings, or the record's field that is predicted: hpv, t_stage, n_stage
    zero_shot: bool = False  # score by text prompts instead of a trained head
    imbalance: str = "none"  # counts: rarer classes weigh more, by the centers' summed counts; weights: as given
    weights: list[float] = field(default_factory=list)  # one per class; of a binary or multi-label class: of its yes


@dataclass
class GroundingTask:
    """Where each structure lies, as boxes that a text prompt asks for."""

    kind: str = "grounding"
    structures: list[str] = field(default_factory=lambda: ["GTVp", "GTVn"])  # each is asked for by a phrase of its own
    prompts: str = "manual"  # manual: the phrases as given; attributes: color, shape, phrase and location by template
    phrases: dict[str, str] = field(default_factory=dict)  # structure -> words; of one that is missing: its name
    # Structure -> [color, shape, location], each may be empty: "pink color oval bump in rectum".
    attributes: dict[str, list[str]] = field(default_factory=dict)
    # Center -> the structures that it outlines; the others are neither learned nor scored there. Missing: all of them.
    outlined: dict[str, list[str]] = field(default_factory=dict)
    slices: bool = False  # boxes in 2D, in the axial slice of each case where the structures are largest
    most: int = 3  # boxes of one structure that are scored of a case; COCO's 100 needs a minimum cell of 1
    width: int = 64  # channels in front of scores and boxes
    level: int = -1  # of the frozen model's pyramid, whose cells are the regions; -1: the deepest

    @property
    def sides(self) -> int:
        """Of a box."""
        return 4 if self.slices else 6


@dataclass
class MaskedTask:
    """Self-supervised: what was hidden of reports and images is restored from the rest. It needs no label."""

    kind: str = "masked"
    # What is looked at, at once: EHR, CT (a volume), CT:slices, PET:projection; several: a decoder for each (joint).
    sources: list[str] = field(default_factory=lambda: ["CT"])
    hidden: float = 0.0  # share that is hidden; 0: the paper's, 0.75 of an image's patches and 0.15 of a report's words
    width: int = 32  # channels of the decoder of images, which is new in each step
    layers: int = 1  # blocks of that decoder; the paper has 8


@dataclass
class PrognosisTask:
    """Time to relapse, with censoring, on a grid of days."""

    kind: str = "prognosis"
    loss: str = "deephit"  # deephit, mtlr, hazard, or cox (stratified by center; no curve of its own)
    bins: int = 12  # of the survival grid
    horizon_days: float = 1825.0  # configured, never a patient's own maximum
    grid: str = "equal"  # equal spacing up to the horizon; quantiles: of the centers' summed event times
    cuts_days: list[float] = field(default_factory=list)  # the grid itself, from 0; what quantiles chose, or one's own
    alpha: float = 0.2  # DeepHit: weight of the ranking loss
    sigma: float = 0.1  # DeepHit: how sharply the ranking loss tells risks apart


@dataclass
class SegmentationTask:
    """Which voxels belong to which structure."""

    kind: str = "segmentation"
    structures: list[str] = field(default_factory=lambda: ["GTVp", "GTVn"])  # by name; [all]: a folder's own
    # Structures that lie within others, {whole_tumor: [tumor_core]}: a voxel is learned as the innermost one and scored
    # as all of them.
    within: dict[str, list[str]] = field(default_factory=dict)
    # Center -> the structures that it outlines; elsewhere in its images the others may be. Missing: all of them.
    outlined: dict[str, list[str]] = field(default_factory=dict)
    tolerance_mm: float = 3.0  # of the surface Dice: how far apart two surfaces may lie and still agree
    loss: str = "dice_ce"  # Dice + cross-entropy; dice_focal (rare voxels weigh more), tversky (misses weigh more)
    largest_component: bool = False  # of each structure in an answer only the largest connected piece stays
    smallest_ml: float = 0.0  # pieces of an answer that are smaller than this become background


@dataclass
class StatisticsTask:
    """Nothing is learned: each center tells histograms of its patients, once, under the rules of every answer."""

    kind: str = "statistics"


TASKS: Registry[type] = Registry(
    "task",
    "spec",
    {
        "classification": ClassificationTask,
        "grounding": GroundingTask,
        "masked": MaskedTask,
        "prognosis": PrognosisTask,
        "segmentation": SegmentationTask,
        "statistics": StatisticsTask,
    },
)
