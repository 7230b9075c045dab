"""Continual methods: how a step goes on with a lineage that earlier steps wrote, and what keeps these known."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class EwcMethod:
    """Elastic weight consolidation: weights that earlier steps' answers depend on stay (Kirkpatrick et al., 2017)."""

    strength: float = 100.0  # lambda, of half the quadratic form; 0: as sequential
    kind: str = "ewc"


@dataclass
class FeaturesMethod:
    """Feature distillation: the adapted encoder goes on saying of each case what it said when the step began."""

    strength: float = 1.0  # of the mean squared difference of features; 0: as sequential
    kind: str = "features"


@dataclass
class FewShotMethod:
    """Every center trains on a few of its cases, drawn once at random: the control of what few labels give."""

    cases: int = 20  # of each center; one with fewer trains on all, and then the step is as without the method
    fraction: float = 0.0  # of each center's cases instead, rounded up; 0: so many as ``cases`` says
    kind: str = "few_shot"


@dataclass
class InfLoraMethod:
    """InfLoRA: each step trains LoRA rows of its own, which read nothing that earlier patients showed (Liang & Li)."""

    rank: int = 2  # rows of factor A that a step makes, and columns of B that it trains; 0: as sequential
    energy: float = 0.97  # of earlier steps' layer inputs, in the directions that new rows keep off
    kind: str = "inflora"


@dataclass
class LwfMethod:
    """Learning without forgetting: the model goes on answering as it did when the step began (Li & Hoiem, 2016)."""

    strength: float = 1.0  # of T^2 KL(before || now); 0: as sequential
    temperature: float = 2.0  # T, of both answers
    kind: str = "lwf"


@dataclass
class MedcossMethod:
    """MedCoSS: features of a few cases of earlier self-supervised stages stay what the last stage's model says."""

    stages: list[str] = field(default_factory=list)  # sources of earlier stages: [EHR, "CT:slices"]; none: sequential
    share: float = 0.2  # of the optimizer's steps, those that rehearse; at least one in a round
    strength: float = 1.0  # of the features' mean squared difference
    select: str = "kmeans"  # who is kept: kmeans, those nearest to the centers of clusters, or random
    clusters: float = 0.01  # of a stage's cases at a center, the number of clusters; at least one
    kept: float = 0.05  # of a stage's cases at a center, those that are kept; at least one of each cluster
    mixup: bool = True  # rehearsed cases are mixed with each other, within their source
    kind: str = "medcoss"


@dataclass
class MergeMethod:
    """Several earlier steps' adapters as a step's start, merged by their effective updates; rounds may follow."""

    of: list[str] = field(default_factory=list)  # names of earlier steps
    how: str = "ties"  # average, arithmetic (their sum), or ties (trimmed, elected, averaged)
    scale: float = 1.0  # what the merged update is multiplied by; one step at scale 1 and density 1 is that step
    density: float = 0.2  # ties: the share of each update's entries that is kept, the largest
    kind: str = "merge"


@dataclass
class MibMethod:
    """MiB's distillation: what a center does not outline is taught by the model before (Cermelli et al., 2020)."""

    strength: float = 1.0  # of the divergence, a mean over voxels and classes; 0: as sequential
    kind: str = "mib"


@dataclass
class OLoraMethod:
    """O-LoRA: the LoRA parts that train read other directions than those that rest (Wang et al., 2023)."""

    strength: float = 0.5  # lambda, of the summed overlap; 0: as sequential
    form: str = "squared"  # of the entries of A_k A^T: squared as the paper says, absolute as its code does
    kind: str = "olora"


@dataclass
class OnlineEwcMethod:
    """EWC with one anchor, the last step's end, and a Fisher that fades (Schwarz et al., 2018)."""

    strength: float = 100.0  # lambda; 0: as sequential
    decay: float = 0.9  # gamma, of what earlier steps' Fisher is multiplied by at each step's end
    kind: str = "online_ewc"


@dataclass
class ProjectionMethod:
    """Projection: no step moves a weight along what earlier patients showed its layer (GPM, FOT)."""

    energy: float = 0.97  # of the layer inputs, in the directions that are kept free; 0: as sequential
    kind: str = "projection"


@dataclass
class MedseqftMethod:
    """MedSeqFT, stage one: features of a task's cases and of kept earlier ones stay what the model before it said."""

    strength: float = 1.0  # of the features' mean squared difference; 0: as sequential
    original: str = ""  # the masked step whose model scores cases by what it restores
    cases: int = 4  # kept of each earlier task at a center
    select: str = "similarity"  # who is kept: those that the original model restores best, or random (the control)
    draws: int = 16  # masks by which a case is scored; the paper's summaries say 1000
    share: float = 0.2  # of the optimizer's steps, those on kept cases
    kind: str = "medseqft"


@dataclass
class RefinementMethod:
    """MedSeqFT, stage two: the features become what those of a fitted model are, from the base that it stood on."""

    teacher: str = ""  # the earlier step whose fitted model teaches
    strength: float = 1.0  # of the features' mean squared difference
    labels: bool = False  # the task's own loss is descended, too
    kind: str = "refinement"


@dataclass
class RehearsalMethod:
    """Rehearsal: centers of earlier steps take part with a few of their training cases, drawn once at random."""

    at: list[str] = field(default_factory=list)  # who takes part with a memory alone; none: as sequential
    cases: int = 20  # in the memory of each of them; a center with fewer rehearses all
    kind: str = "rehearsal"


@dataclass
class SequentialMethod:
    """Plain training on from the lineage's head: nothing keeps what was known. The lower bound of every other one."""

    kind: str = "sequential"


@dataclass
class DerppMethod(RehearsalMethod):
    """DER++: rehearsal that also keeps to the old model's answers on the memory (Buzzega et al., 2020)."""

    alpha: float = 0.5  # of the mean squared difference of answers; 0: as rehearsal
    kind: str = "derpp"
