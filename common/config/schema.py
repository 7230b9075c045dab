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
    classes: list[str] = field(default_factory=list)  # findings, or the names of one target's classes in order
    form: str = "multi_label"  # binary (one name), multi_label, multi_class, or ordinal (stages)
    target: str = "findings"  # findings, or the record's field that is predicted: hpv, t_stage, n_stage
    zero_shot: bool = False  # score by text prompts instead of a trained head
    imbalance: str = "none"  # counts: rarer classes weigh more, by the centers' summed counts; weights: as given
    weights: list[float] = field(default_factory=list)  # one per class; of a binary or multi-label class: of its yes


@dataclass
class PrognosisTask:
    kind: str = "prognosis"
    loss: str = "deephit"  # deephit, mtlr, hazard, or cox (stratified by center; no curve of its own)
    bins: int = 12
    horizon_days: float = 1825.0  # configured, never a patient's own maximum
    grid: str = "equal"  # equal spacing up to the horizon; quantiles: of the centers' summed event times
    cuts_days: list[float] = field(default_factory=list)  # the grid itself, from 0; what quantiles chose, or one's own
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
    rule: str = ""  # how factors are aggregated: fedit, ffa, rolora, fedsvd, fedsb, flora, fedex, flexlora; empty:
    # rolora (exact, half the bytes), for dora the exact stack (flora)
    ranks: dict[str, int] = field(default_factory=dict)  # center -> a rank of its own below ``rank`` (flora, flexlora)
    side_rank: int = 32  # flora, fedex: room of the task's frozen side factor; what does not fit is reported
    refresh_every: int = 1  # fedsvd: rounds between two new bases


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
class LinearPart:
    """A linear model on frozen features and records, fitted by federation=newton; it is the step's head."""

    kind: str = "linear"
    variables: list[str] = field(default_factory=list)  # of the clinical schema, for modality RECORD; empty: all
    known_flags: bool = True  # false: the ablation without the flags that say what is recorded, and so where


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
    anneal: bool = False  # let the learning rate fall over the step's rounds, along half a cosine
    weight_decay: float = 1e-5
    clip_norm: float = 1.0  # of the gradient; 0 switches it off
    augment: bool = True  # mirror and shift intensities; off lets frozen features be cached
    # Which images a batch shows, by probability, of cases that have both: {CT+PET: 0.6, CT: 0.2, PET: 0.2} is PEMMA's
    # modality draw, {PET: 1.0} a stage where only PET arrives. Empty: everything a case has.
    draw: dict[str, float] = field(default_factory=dict)


@dataclass
class Guards:
    """What the server asks of an update before it may be aggregated, and when it stops listening to a center."""

    norm_factor: float = 5.0  # an update this many times the round's median norm is quarantined; 0 switches it off
    norm_mads: float = 6.0  # ... unless it is within this many (scaled) median absolute deviations of the median
    norm_cap: float | None = None  # a norm that no part of an update may exceed, whatever the others do
    cases_factor: float = 100.0  # a center with this many times the others' median of cases is not enrolled; 0: off
    strikes: int = 3  # quarantined updates after which a center is suspended until released; 0: never
    validation: str = "pooled"  # pooled sums, or median of the centers' own values: no center alone chooses the round


@dataclass
class Compression:
    """How adapters travel: as they are, or as rounded differences with error feedback, both ways."""

    kind: str = "none"  # none, fp16, int8 (neighbors in groups share a scale) or topk (the largest share)
    group: int = 64
    share: float = 0.1


@dataclass
class Federation:
    """What every aggregation rule has."""

    kind: str = ""
    quorum: float = 0.7  # share of the step's centers that must reply, else the round is void
    deadline_s: float = 3600.0
    at_least: int = 0  # centers to wait for where a step asks "*"; 0: those that are there once no more come
    proximal: float = 0.0  # FedProx: the pull mu of local training towards the round's start
    local: list[str] = field(default_factory=list)  # FedBN: patterns of tensor names that stay at each center
    sum_only: bool = False  # promise never to look at one update by itself: what secure sums need; checked by the rules
    personal: float | None = None  # Ditto: each center keeps a model of its own, pulled this much to the common one
    guards: Guards = field(default_factory=Guards)
    compression: Compression = field(default_factory=Compression)


@dataclass
class WeightedFederation(Federation):
    """A rule in which a center's registered training cases count."""

    weighting: str = "sqrt"  # n, sqrt (of n: MDA alone holds 38 % of HECKTOR) or uniform


@dataclass
class MeanFederation(WeightedFederation):
    """Weighted mean of the centers' parameters, part by part over the centers that trained the part."""

    kind: str = "mean"


@dataclass
class FedAvgMFederation(WeightedFederation):
    """The mean's step with momentum on the server."""

    kind: str = "fedavgm"
    learning_rate: float = 1.0
    momentum: float = 0.9


@dataclass
class AdaptiveFederation(WeightedFederation):
    """The mean's step, scaled per coordinate on the server."""

    learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3  # adaptivity: what the root of the second moment starts at and is added to it


@dataclass
class FedAdamFederation(AdaptiveFederation):
    kind: str = "fedadam"


@dataclass
class FedYogiFederation(AdaptiveFederation):
    kind: str = "fedyogi"


@dataclass
class FedAdagradFederation(WeightedFederation):
    """As FedAdam, with a second moment that never forgets."""

    kind: str = "fedadagrad"
    learning_rate: float = 0.01
    beta1: float = 0.0
    tau: float = 1e-3


@dataclass
class ScaffoldFederation(WeightedFederation):
    """Control variates against client drift: twice the bytes, and state at both ends."""

    kind: str = "scaffold"
    learning_rate: float = 1.0


@dataclass
class FedDynFederation(WeightedFederation):
    """Dynamic regularisation against client drift, with state at both ends."""

    kind: str = "feddyn"
    alpha: float = 0.1


@dataclass
class MedianFederation(Federation):
    """Median of each coordinate: every center one voice."""

    kind: str = "median"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused


@dataclass
class TrimmedMeanFederation(Federation):
    """Mean of each coordinate without its ``faulty`` smallest and largest values."""

    kind: str = "trimmed_mean"
    faulty: int = 2


@dataclass
class GeometricMedianFederation(WeightedFederation):
    """The point with the least summed distance to the updates (RFA)."""

    kind: str = "geometric_median"
    faulty: int = 2
    smoothing: float = 1e-6  # of the median distance: below it an update counts as being there


@dataclass
class NormClipFederation(WeightedFederation):
    """Mean of updates that are shortened to a common length."""

    kind: str = "norm_clip"
    faulty: int = 2
    bound: float | None = None  # length of an update; null: the median of the round's lengths


@dataclass
class CenteredClipFederation(WeightedFederation):
    """Mean of updates whose distance from the running center is shortened, repeated."""

    kind: str = "centered_clip"
    faulty: int = 2
    bound: float | None = None  # distance; null: the median of the distances, in every iteration
    iterations: int = 3


@dataclass
class KrumFederation(Federation):
    """The one update that is nearest to its neighbors. Costs about half an update where nobody attacks."""

    kind: str = "krum"
    faulty: int = 2


@dataclass
class MultiKrumFederation(Federation):
    """Mean of the updates that are nearest to their neighbors."""

    kind: str = "multi_krum"
    faulty: int = 2
    keep: int | None = None  # how many; null: all but ``faulty``


@dataclass
class BulyanFederation(Federation):
    """Multi-Krum's selection, then a trimmed mean around the median of each coordinate."""

    kind: str = "bulyan"
    faulty: int = 1


@dataclass
class NewtonFederation(Federation):
    """Exact: centers send sums of gradients and Hessians, the fit equals that of pooled cases (a Cox model's risk sets
    stay within centers). For steps whose only part is linear; ``rounds`` is the most that the search may take."""

    kind: str = "newton"
    objective: str = ""  # empty: the task's own (cox, hazard or logistic); ridge: least squares, in one round
    penalty: float = 10.0  # of penalty / 2 * |weight|^2 beside the summed loss, on standardised columns
    keep_sums: bool = True  # false: a center's own ridge sums are forgotten once added; it cannot be subtracted later


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
    federation: Any = None  # null: the mean; a default of its own kind could not be replaced by another kind
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

    def __post_init__(self) -> None:
        self.federation = MeanFederation() if self.federation is None else self.federation


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
    text: str = "own"  # own: the backbone's text side; ngrams: hashed words and word pairs, projected at random
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
    mapping: str | None = None  # YAML that says what a table's columns mean; null: the shipped ones
    table: str | None = None  # study=survival_table: one table of patients of several centers
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


FAULTS = (
    "alie", "count_inflation", "crash", "dropout", "duplicate", "inf", "ipm", "label_flip", "nan", "replay", "scaled",
    "sign_flip", "stale", "straggler", "wrong_keys", "wrong_shape",
)  # fmt: skip


@dataclass
class Fault:
    """Something that goes wrong on purpose in a simulation; `simulations/faults.py` says what each kind does."""

    kind: str = "???"
    centers: list[str] = field(default_factory=lambda: ["*"])
    steps: list[str] = field(default_factory=lambda: ["*"])
    rounds: list[int] = field(default_factory=list)  # empty: every round
    probability: float = 1.0  # of each center in each round, drawn from the run's seed
    factor: float | None = None  # of a kind that scales, slows down or inflates; null: the kind's own


@dataclass
class AggregationStudy:
    """Every aggregation rule on one segmentation and one prognosis step."""

    kind: str = "aggregation"
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    steps: list[str] = field(default_factory=lambda: ["tumour_ct", "relapse"])
    draws: int = 200  # of the patient-level bootstrap


@dataclass
class AttacksStudy:
    """Every attack against every robust rule, with none, one and two attackers."""

    kind: str = "attacks"
    seeds: list[int] = field(default_factory=lambda: [1])
    step: str = "tumour_ct"
    attackers: list[str] = field(default_factory=lambda: ["CHUP", "CHUS"])  # the first f of them attack
    attacks: list[str] = field(default_factory=lambda: ["scaled", "sign_flip", "ipm", "alie", "label_flip", "nan"])
    draws: int = 200


@dataclass
class PhantomPrognosisStudy:
    """Prognosis heads on frozen features of the phantom cohort, for every input, loss and way to learn."""

    kind: str = "phantom_prognosis"
    inputs: list[str] = field(default_factory=lambda: ["text", "image", "image+text"])
    losses: list[str] = field(default_factory=lambda: ["deephit", "mtlr", "cox"])
    folds: int = 5
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    rounds: int = 30  # and passes of the arms that are not federated
    batch: int = 16
    learning_rate: float = 1e-3
    penalties: list[float] = field(default_factory=lambda: [3.0, 30.0, 300.0])  # of the Newton baseline
    draws: int = 1000  # of the bootstrap over patients


@dataclass
class CoxStudy:
    """Cox models at several centers: pooled, federated, local, one center left out."""

    kind: str = ""
    about: str = ""  # where the data come from; said on the page
    inputs: dict[str, list[str]] = field(default_factory=dict)  # name of a set of inputs -> what is in it
    known_flags: bool = True  # false: the ablation without the flags that reveal who records what
    folds: int = 5
    repeats: int = 5
    across_folds: bool = False  # also compare patients of different test folds; for centers of a few patients
    penalties: list[float] = field(default_factory=lambda: [1.0, 3.0, 10.0, 30.0, 100.0])
    sgd_rounds: int = 50  # of FedAvg and FedAdam
    local_steps: int = 5
    local_rate: float = 0.1
    server_rate: float = 0.03  # FedAdam's
    draws: int = 2000  # of the bootstrap
    horizon_months: int = 24  # when predicted and observed survival are compared


@dataclass
class SurvivalTableStudy(CoxStudy):
    """On one table (data.table, data.mapping). Inputs are variables of the schema; none: all that the mapping has."""

    kind: str = "survival_table"
    outcome: str = "rfs"  # one of the mapping's outcomes


@dataclass
class Sts7PrognosisStudy(CoxStudy):
    """On records and frozen features of a folder with images (data.root). Inputs are records, CT and PET."""

    kind: str = "sts7_prognosis"
    variables: list[str] = field(default_factory=list)  # of the records; empty: all of the schema
    view: View = field(default_factory=View)


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
    faults: dict[str, Any] = field(default_factory=dict)  # name -> Fault, in simulations only
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
    anneal: bool = False
    augment: bool = False  # off lets frozen features be cached
    arms: list[str] = field(default_factory=lambda: ["federated", "centralized", "random backbone", "untrained"])


@dataclass
class UniconPrognosisStudy(StudySize):
    """UNICON's prognosis table."""

    kind: str = "unicon_prognosis"
    arms: list[str] = field(
        default_factory=lambda: ["federated", "federated Newton", "centralized", "random backbone", "untrained"]
    )


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
    "linear": LinearPart,
    "lora": LoraPart,
    "mlp": MlpPart,
    "patch_embed": PatchEmbedPart,
    "resolution": ResolutionPart,
    "skip": SkipPart,
    "stand_in": StandInPart,
}
METHODS: dict[str, type] = {}
FEDERATIONS: dict[str, type] = {
    "bulyan": BulyanFederation,
    "centered_clip": CenteredClipFederation,
    "fedadagrad": FedAdagradFederation,
    "fedadam": FedAdamFederation,
    "fedavgm": FedAvgMFederation,
    "feddyn": FedDynFederation,
    "fedyogi": FedYogiFederation,
    "geometric_median": GeometricMedianFederation,
    "krum": KrumFederation,
    "mean": MeanFederation,
    "median": MedianFederation,
    "multi_krum": MultiKrumFederation,
    "newton": NewtonFederation,
    "norm_clip": NormClipFederation,
    "scaffold": ScaffoldFederation,
    "trimmed_mean": TrimmedMeanFederation,
}
STUDIES: dict[str, type] = {
    "aggregation": AggregationStudy,
    "attacks": AttacksStudy,
    "pemma_fusion": PemmaFusionStudy,
    "phantom_prognosis": PhantomPrognosisStudy,
    "sts7_prognosis": Sts7PrognosisStudy,
    "survival_table": SurvivalTableStudy,
    "unicon_prognosis": UniconPrognosisStudy,
    "unicon_segmentation": UniconSegmentationStudy,
}
