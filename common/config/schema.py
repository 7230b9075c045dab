"""The run as data: every option that a YAML file or a command line may set, with its default and unit.

Polymorphic slots (a task, an adapter part, a method) are dataclasses with a ``kind``; the kinds are closed sets
(`TASKS`, `PARTS`, `METHODS`, `FEDERATIONS`, `STUDIES`): a step crosses the network and must never name code to import.
Classes are not frozen: OmegaConf would make them read-only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# --------------------------------------------------------------------------------------------------- what is seen


@dataclass
class View:
    """How a case becomes tensors, identical at every center. Axes are ordered (depth z, height y, width x)."""

    spacing_mm: list[float] = field(default_factory=lambda: [3.0, 3.0, 3.0])
    size: list[int] | None = field(default_factory=lambda: [48, 48, 48])  # voxels of the crop; null: whole volume
    window: list[int] = field(default_factory=lambda: [48, 48, 48])  # what the network sees at once
    crop: str = "head_neck"  # head_neck (label-free rule), center, none
    ct_hu: list[float] = field(default_factory=lambda: [-1024.0, 1024.0])  # clipped to this, scaled to [-1, 1]
    pet: str = "zscore"  # zscore over the crop, or suv (clipped to [0, 25], divided by 25)


# ---------------------------------------------------------------------------------------------------------- tasks


@dataclass
class ClassificationTask:
    kind: str = "classification"
    classes: list[str] = field(default_factory=list)
    zero_shot: bool = False  # score by text prompts instead of a trained head


@dataclass
class PrognosisTask:
    kind: str = "prognosis"
    loss: str = "deephit"
    bins: int = 12
    horizon_days: float = 1825.0  # configured, never a patient's own maximum
    alpha: float = 0.2
    sigma: float = 0.1


@dataclass
class SegmentationTask:
    kind: str = "segmentation"
    structures: list[str] = field(default_factory=lambda: ["GTVp", "GTVn"])


# ---------------------------------------------------------------------------------------------------- adapter parts


@dataclass
class LoraPart:
    """Low-rank updates inside the frozen backbone (UNICON's within-model adaptation)."""

    kind: str = "lora"
    sites: list[str] = field(default_factory=lambda: ["image_attention", "text_attention"])  # names in backbone.sites
    rank: int = 8  # 16 doubles what travels each round
    alpha: float = 16.0
    dropout: float = 0.1
    depth: int | None = None  # only the last k blocks of each stack; null: all
    dora: bool = False


@dataclass
class MlpPart:
    """One modality's embedding, adapted after the model (UNICON's post-model adaptation)."""

    kind: str = "mlp"
    input: str = "image"  # image or text
    width: int = 64
    dropout: float = 0.1


@dataclass
class FusionPart:
    """Joins the adapted embeddings of the modalities that are present."""

    kind: str = "fusion"
    width: int = 64
    dropout: float = 0.1
    mode: str = "mlp"  # mlp (side by side), or attention (embeddings ask each other and the image tokens)


@dataclass
class DecoderPart:
    """Hidden states, and where the style has one a skip from the CT volume, to voxel logits."""

    kind: str = "decoder"
    features: int = 8
    style: str = "auto"  # unetr (one grid), light (narrow, any pyramid), linear (one layer, no skip); auto: by pyramid


@dataclass
class FullPart:
    """Tensors of the backbone itself, copied and trained: the baseline that every adapter is compared with."""

    kind: str = "full"
    tensors: str = ".*"  # regular expression; matches whole tensor names of the backbone
    scratch: bool = False  # start from seeded random values instead of the pretrained ones


@dataclass
class ResolutionPart:
    """UNICON's resolution adaptation: the task's own CT patch embedding and its own position parameters."""

    kind: str = "resolution"
    patch: list[int] | None = None  # voxels (depth, height, width) of a token; null: the backbone's, starting as a copy
    position: bool = True  # the backbone's position parameters, copied (ViT: its table, interpolated) and trained


@dataclass
class PatchEmbedPart:
    """A patch embedding for a modality that the backbone has never seen."""

    kind: str = "patch_embed"
    modality: str = "PET"
    init: str = "zero"  # zero: attaching changes no output bit; copy: starts from the CT embedding
    place: str = "add"  # add: to the CT tokens; beside: in one sequence with them (PEMMA on a plain ViT)


@dataclass
class JoinPart:
    """CT and PET tokens side by side in their channels, projected to one set of tokens (PEMMA on Swin: 96 to 48)."""

    kind: str = "join"


@dataclass
class StandInPart:
    """Expands the tokens of the only modality that a case has to the width of both, in front of the join (PEMMA)."""

    kind: str = "stand_in"
    modality: str = "PET"  # the one that is there


@dataclass
class SkipPart:
    """A full-resolution skip from a new modality, added to the CT skip (PEMMA's PET skip connection)."""

    kind: str = "skip"
    modality: str = "PET"
    features: int = 8  # must equal the decoder's


@dataclass
class Adapter:
    """Named parts. Everything that a step trains, and everything that travels."""

    parts: dict[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------- training, federation


@dataclass
class Training:
    """The local loop's settings, per round."""

    epochs: int = 1  # passes over the local training cases in one round
    batch: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    clip_norm: float = 1.0  # of the gradient; 0 switches it off
    augment: bool = True  # mirror and shift intensities; off lets frozen features be cached
    # Which images a batch shows, by probability, of cases that have both: {CT+PET: 0.6, CT: 0.2, PET: 0.2} is PEMMA's
    # modality draw, {PET: 1.0} a stage where only PET arrives. Empty: everything a case has.
    draw: dict[str, float] = field(default_factory=dict)


@dataclass
class MeanFederation:
    """Weighted mean of the centers' parameters, part by part over the centers that trained the part."""

    kind: str = "mean"
    weighting: str = "sqrt"  # n, sqrt (of n: MDA alone holds 38 % of HECKTOR) or uniform
    quorum: float = 0.7  # share of the step's centers that must reply, else the round is void
    deadline_s: float = 3600.0


@dataclass
class Selection:
    """The validation rule: which round's state is kept. Test cases are never looked at."""

    metric: str = ""  # empty: the task's primary metric
    every: int = 1  # rounds between validations


@dataclass
class Step:
    """One entry of the curriculum: pure data, sent as JSON with every message."""

    name: str = ""
    task: Any = None
    modalities: list[str] = field(default_factory=lambda: ["CT"])
    modes: list[str] = field(default_factory=list)  # also scored from these alone: [CT, PET, CT+PET]; empty: from all
    adapter: Adapter = field(default_factory=Adapter)
    methods: list[Any] = field(default_factory=list)
    federation: Any = field(default_factory=MeanFederation)
    view: View = field(default_factory=View)
    training: Training = field(default_factory=Training)
    selection: Selection = field(default_factory=Selection)
    centers: list[str] = field(default_factory=lambda: ["*"])  # who trains; "*": every center that can
    evaluate_at: list[str] = field(default_factory=lambda: ["*"])
    rounds: int = 0  # 0: evaluated, never trained
    starts_from: str | None = None  # an earlier step whose parts are the start
    writes: str | None = None  # lineage; null: the step's own name, so nothing can overwrite it
    train_parts: list[str] = field(default_factory=lambda: ["*"])  # the others stay at their start
    region: str = "head_neck"


# -------------------------------------------------------------------------------------------------------- the run


@dataclass
class BackboneSpec:
    kind: str = "ct_clip"  # ct_clip, unetr, swin_unetr or tiny
    config: str = "mini"  # ct_clip: mini, released; unetr: vit_b, small; swin_unetr: base, small
    weights: str | None = None  # path of a checkpoint; null: the shipped weights of the mini CT-CLIP
    text_folder: str | None = None  # a local CXR-BERT folder for the released text side
    projection: bool = True  # ct_clip: false leaves out the visual projection, which only zero-shot scores need
    image_size: list[int] | None = None  # unetr: (depth, height, width) of its position table; null: the config's
    feature_size: int | None = None  # swin_unetr: channels of a token, a multiple of 12; null: the config's
    random_seed: int | None = None  # the control: the same architecture frozen at random weights
    digest: str | None = None  # refuse weights with another SHA-256 (python -m server inspect prints it)


@dataclass
class Split:
    """By patient, stratified by center and event, from a keyed hash; no list of IDs is ever exchanged."""

    seed: int = 0
    folds: int = 5  # test = fold number `fold`
    fold: int = 0
    validation: float = 0.2  # share of the remaining cases


@dataclass
class Data:
    kind: str = "phantom"  # phantom, or folder for any HECKTOR edition or sts7
    root: str = "data/phantom"
    chest_root: str | None = None
    scale: float = 0.3  # of the phantom cohort: 1.0 is HECKTOR's 524
    seed: int = 11
    split: Split = field(default_factory=Split)
    skip_unreadable: bool = True  # one unreadable case does not stop a center; it is counted
    # A cohort that stands in for HECKTOR: its centers for the curriculum's, and what every step's is replaced by.
    centers: dict[str, str] = field(default_factory=dict)  # the curriculum's code -> the cohort's
    region: str | None = None
    structures: list[str] | None = None  # to segment
    view: View | None = None  # of the steps on head_neck
    minimum_cell: int = 1  # results of fewer test cases than this are suppressed; hospitals default to 5


@dataclass
class Runtime:
    device: str = "cpu"  # cpu or cuda
    workers: int = 0  # centers at a time; 0: one per core
    threads: int = 1  # per worker; results depend on it, so it is fixed, not guessed
    mixed_precision: bool = False
    deterministic: bool = True
    gpu_memory_gb: float | None = None  # per center


@dataclass
class Compare:
    """What `python -m simulations compare` runs beside the federation, on the same splits, seeds and samples."""

    seeds: list[int] = field(default_factory=lambda: [1])
    folds: list[int] = field(default_factory=lambda: [0])
    random_backbone: bool = True
    learning_rates: list[float] = field(
        default_factory=lambda: [1.0]
    )  # factors that every arm tries on each step's own
    tuning_share: float = 0.25  # of a step's rounds, for each try
    pairs: list[list[str]] = field(default_factory=list)  # [step, control step]: paired differences to report
    draws: int = 1000  # of the patient-level bootstrap


@dataclass
class Run:
    """One run: everything needed to repeat it."""

    name: str = "run"
    seed: int = 1
    curriculum: str = ""
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    data: Data = field(default_factory=Data)
    runtime: Runtime = field(default_factory=Runtime)
    steps: dict[str, Step] = field(default_factory=dict)
    controls: dict[str, Step] = field(default_factory=dict)  # steps that only a comparison runs, after the others
    with_controls: bool = False
    compare: Compare = field(default_factory=Compare)
    study: Any = None  # a table of runs that `python -m simulations compare study=NAME` makes


# --------------------------------------------------------------------------------------------------------- studies


@dataclass
class StudySize:
    """How large the steps of a study are, and which arms run beside the federation."""

    kind: str = ""
    view: View = field(default_factory=lambda: View([6.0] * 3, [24] * 3, [24] * 3))
    rounds: int = 8
    epochs: int = 1
    batch: int = 4
    learning_rate: float = 2e-3
    augment: bool = False  # off lets frozen features be cached
    arms: list[str] = field(default_factory=lambda: ["federated", "centralized", "random backbone", "untrained"])


@dataclass
class UniconPrognosisStudy(StudySize):
    """UNICON's prognosis table."""

    kind: str = "unicon_prognosis"


@dataclass
class UniconSegmentationStudy(StudySize):
    """UNICON's segmentation ablation."""

    kind: str = "unicon_segmentation"


@dataclass
class PemmaFusionStudy(StudySize):
    """PEMMA beside the ways to fuse CT and PET, and what its stages forget."""

    kind: str = "pemma_fusion"
    arms: list[str] = field(default_factory=lambda: ["federated", "random backbone", "untrained"])


TASKS = {"classification": ClassificationTask, "prognosis": PrognosisTask, "segmentation": SegmentationTask}
PARTS = {
    "decoder": DecoderPart,
    "full": FullPart,
    "fusion": FusionPart,
    "join": JoinPart,
    "lora": LoraPart,
    "mlp": MlpPart,
    "patch_embed": PatchEmbedPart,
    "resolution": ResolutionPart,
    "skip": SkipPart,
    "stand_in": StandInPart,
}
METHODS: dict[str, type] = {}
FEDERATIONS = {"mean": MeanFederation}
STUDIES: dict[str, type] = {
    "pemma_fusion": PemmaFusionStudy,
    "unicon_prognosis": UniconPrognosisStudy,
    "unicon_segmentation": UniconSegmentationStudy,
}
