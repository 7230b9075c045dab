"""Studies: tables of runs that `python -m simulations compare study=NAME` makes, with their options."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.config.view import View


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
