"""Options and arms of the studies whose arms are whole curricula: MedCoSS' and MedSeqFT's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.config.view import View


@dataclass(frozen=True)
class Arm:
    """One curriculum beside others.

    Args:
        said: its row in words.
        curriculum: of configs/curriculum.
        scored: task -> the step whose adapter answers it.
        overrides: what it changes of its curriculum.
        without: steps of the curriculum that it leaves out.
    """

    said: str
    curriculum: str
    scored: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------ MedCoSS

DOWNSTREAM = {"tumour_ct": "tumour_ct", "hpv": "hpv"}
REHEARSING = {"slices": "[EHR]", "ct": '[EHR,"CT:slices"]', "pet": '[EHR,"CT:slices",CT]'}  # stage -> what it rehearses


def _rehearsing(options: str) -> tuple[str, ...]:
    """MedCoSS' stages with other options of its method."""
    return tuple(
        f"steps.stage_{stage}.methods=[{{kind:medcoss,stages:{stages},{options}}}]"
        for stage, stages in REHEARSING.items()
    )


def _each(method: str) -> tuple[str, ...]:
    """All four stages with one method."""
    return tuple(f"steps.stage_{stage}.methods=[{method}]" for stage in ("reports", *REHEARSING))


MEDCOSS: dict[str, Arm] = {
    "scratch": Arm("from scratch, no stages", "medcoss_scratch", DOWNSTREAM),
    "frozen": Arm(
        "no stages, encoder frozen at random weights", "medcoss_scratch", DOWNSTREAM,
        ("adapter@steps.tumour_ct.adapter=decoder", "adapter@steps.hpv.adapter=image"),
    ),
    "single": Arm("one modality, CT", "medcoss_single", DOWNSTREAM),
    "joint": Arm("joint, a decoder for each source", "medcoss_joint", DOWNSTREAM),
    "sequential": Arm("sequential", "medcoss_sequential", DOWNSTREAM),
    "ewc": Arm("EWC", "medcoss_sequential", DOWNSTREAM, _each("ewc")),
    "random": Arm("features of random cases", "medcoss", DOWNSTREAM, _rehearsing("select:random,mixup:false")),
    "random_mixed": Arm("features of random cases, mixed", "medcoss", DOWNSTREAM, _rehearsing("select:random")),
    "unmixed": Arm("features of cases by k-means", "medcoss", DOWNSTREAM, _rehearsing("mixup:false")),
    "medcoss": Arm("MedCoSS: by k-means, mixed", "medcoss", DOWNSTREAM),
    "merged": Arm("MedCoSS by LoRA, merged", "medcoss_merged", DOWNSTREAM),
}  # fmt: skip


@dataclass
class CurriculaStudy:
    """What both studies are told."""

    kind: str = ""
    arms: list[str] = field(default_factory=list)  # rows
    seeds: list[int] = field(default_factory=lambda: [1])  # each a run of every arm
    folds: list[int] = field(default_factory=lambda: [0])  # whose patients test, each a run of every arm
    stage_rounds: int = 3  # of every self-supervised stage and of every refinement
    task_rounds: int = 4  # of every task that is learned from labels
    view: View = field(default_factory=lambda: View([4.5] * 3, [32] * 3, [32] * 3))  # of every step
    draws: int = 500  # of the bootstrap over patients


@dataclass
class MedcossStudy(CurriculaStudy):
    """MedCoSS beside what its paper compares it with, each a federation of its own."""

    kind: str = "medcoss"
    arms: list[str] = field(default_factory=lambda: ["scratch", "joint", "sequential", "medcoss"])  # rows
    task_rounds: int = 6  # of every task that is learned from labels


# ----------------------------------------------------------------------------------------------------------- MedSeqFT

SEQUENCE = {"gtvp": "GTVp", "gtvn": "GTVn", "brain": "brain", "node": "benign_node"}  # step -> structure
UNSEEN = {"parotid": "parotid", "thyroid": "thyroid"}  # learned from where a sequence ended, by no arm before
STRUCTURES = SEQUENCE | UNSEEN


def _transfer(base: str | None) -> tuple[str, ...]:
    """Both tasks that no sequence has, each fitted to one base."""
    found: list[str] = []
    for step, structure in UNSEEN.items():
        values = (f"task.structures=[{structure}]", "methods=[]", f"stands_on={base or 'null'}")
        found += [f"+step@steps.{step}=fitted", *(f"steps.{step}.{value}" for value in values)]
    return tuple(found)


def _fitted(suffix: str = "_fit") -> dict[str, str]:
    return {step: f"{step}{suffix}" for step in SEQUENCE} | {step: step for step in UNSEEN}


MEDSEQFT: dict[str, Arm] = {
    "scratch": Arm(
        "each task from random weights", "medseqft_parallel", _fitted(),
        (*(f"steps.{step}_fit.stands_on=null" for step in SEQUENCE), *_transfer(None)), without=("original",),
    ),
    "frozen": Arm(
        "decoders on random weights, frozen", "medseqft_parallel", _fitted(),
        (
            *(f"steps.{step}_fit.stands_on=null" for step in SEQUENCE), *_transfer(None),
            *(f"adapter@steps.{step}_fit.adapter=decoder" for step in SEQUENCE),
            *(f"adapter@steps.{step}.adapter=decoder" for step in UNSEEN),
        ),
        without=("original",),
    ),
    "parallel": Arm("parallel: each from the original model", "medseqft_parallel", _fitted(), _transfer("original")),
    "joint": Arm(
        "all four at once", "medseqft_joint",
        dict.fromkeys(SEQUENCE, "all_fit") | {step: step for step in UNSEEN}, _transfer("all_fit"),
    ),
    "sequential": Arm("sequential full fine-tuning", "medseqft_sequential", _fitted(), _transfer("node_fit")),
    "lora": Arm("sequential LoRA", "medseqft_lora", _fitted(""), _transfer("node")),
    "unrefined": Arm("MedSeqFT without refinement", "medseqft_unrefined", _fitted(), _transfer("node_fit")),
    "random": Arm("MedSeqFT, kept cases at random", "medseqft_random", _fitted(), _transfer("node")),
    "medseqft": Arm("MedSeqFT", "medseqft", _fitted(), _transfer("node")),
}  # fmt: skip


@dataclass
class MedseqftStudy(CurriculaStudy):
    """MedSeqFT beside what its paper compares it with, each a federation of its own, and two tasks learned after it."""

    kind: str = "medseqft"
    arms: list[str] = field(default_factory=lambda: ["sequential", "unrefined", "random", "medseqft"])  # rows


ARMS: dict[str, dict[str, Arm]] = {"medcoss": MEDCOSS, "medseqft": MEDSEQFT}
