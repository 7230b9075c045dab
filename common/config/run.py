"""Run: everything needed to repeat one, as data, with each option's default and unit.

Polymorphic slots (a task, an adapter part, a method) are dataclasses with a ``kind``; the kinds are closed sets
(`TASKS`, `PARTS`, `METHODS`, `FEDERATIONS`): a step crosses the network and must never name code to import.
Classes are not frozen: OmegaConf would make them read-only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from common.config.step import Step
from common.config.view import View


@dataclass
class BackboneSpec:
    """The frozen model, known by its kind, size and weights."""

    kind: str = "ct_clip"  # ct_clip, dimension_free, shapes, swin_unetr, tiny or unetr
    config: str = "mini"  # ct_clip: mini, released; dimension_free: tiny, vit_b; others: their kind's own
    weights: str | None = None  # path of a checkpoint; null: the shipped weights of the mini CT-CLIP
    text_folder: str | None = None  # a local CXR-BERT folder for the released text side
    projection: bool = True  # ct_clip: false leaves out the visual projection, which only zero-shot scores need
    image_size: list[int] | None = None  # unetr: (depth, height, width) of its position table; null: the config's
    feature_size: int | None = None  # swin_unetr: channels of a token, a multiple of 12; null: the config's
    random_seed: int | None = None  # the control: the same architecture frozen at random weights
    text: str = "own"  # own: the backbone's text side; ngrams: hashed words and word pairs, projected at random
    digest: str | None = None  # refuse weights with another SHA-256 (python -m server inspect prints it)


PARTS = ("train", "validation", "test")  # of a split


@dataclass
class Split:
    """By patient, stratified by center and event, from a keyed hash; no list of IDs is ever exchanged."""

    seed: int = 0  # of the keyed hash: another one is another split
    folds: int = 5  # test = fold number `fold`
    fold: int = 0  # the fold whose cases test; from 0
    validation: float = 0.2  # share of the remaining cases
    everywhere: bool = True  # validation cases at every center of two cases; false: shares add up over all centers


@dataclass
class Data:
    """Which cohort, and how its patients are split."""

    kind: str = "phantom"  # phantom, or folder for one's own, HECKTOR or sts7
    root: str = "data/phantom"  # the cohort's folder; the phantom cohort is made there on first use
    layout: str = "auto"  # of the folder: hecktor, nnunet, brats, or a YAML that declares it; auto: what is there
    chest_root: str | None = None  # folder of the chest cohort; null: beside root, as the phantom makes it
    mapping: str | None = None  # YAML that says what a table's columns mean; null: the shipped ones
    table: str | None = None  # study=survival_table: one table of patients of several centers
    scale: float = 0.3  # of the phantom cohort: 1.0 is HECKTOR's 524
    seed: int = 11  # of the phantom cohort
    organs: bool = False  # of the phantom cohort: its labels also hold brain, benign nodes, parotids, thyroid (3 to 6)
    split: Split = field(default_factory=Split)
    skip_unreadable: bool = True  # one unreadable case does not stop a center; it is counted
    # Of a cohort that stands in for HECKTOR: the curriculum's code of a center -> the cohort's.
    centers: dict[str, str] = field(default_factory=dict)
    region: str | None = None  # the cohort's, in the place of head_neck; null: as the steps say
    structures: list[str] | None = None  # to segment
    view: View | None = None  # of the steps on head_neck
    # What the policies of simulated centers are written with; a hospital's own says 5 of each, unless it changes them.
    minimum_cases: int = 1  # a center with fewer training cases than this does not train
    minimum_cell: int = 1  # results of fewer cases than this do not leave


@dataclass
class Runtime:
    """The machine that a simulation runs on."""

    device: str = "cpu"  # cpu or cuda
    workers: int = 0  # centers at a time; 0: one per core; 1 on the CPU: in this very process, nothing is serialised
    threads: int = 1  # per worker; results depend on it, so it is fixed, not guessed
    mixed_precision: bool = False  # bf16 autocast, on a GPU
    deterministic: bool = True  # the same bits each time on the same machine; some CUDA kernels have no such form
    gpu_memory_gb: float | None = None  # per center


@dataclass
class Compare:
    """What `python -m simulations compare` runs beside the federation, on the same splits, seeds and samples."""

    seeds: list[int] = field(default_factory=lambda: [1])  # each is a run of every arm
    folds: list[int] = field(default_factory=lambda: [0])  # each is tested once with every seed
    random_backbone: bool = True  # also the same architecture frozen at random weights
    # Further arms: blurs (the exact head on raw values and blurs), exact_random (... at random weights), left_out (one
    # center), rules (SUV), unet (a small U-Net from random weights: federated, centralized, at each center).
    arms: list[str] = field(default_factory=list)
    # Factors that every arm tries on each step's own learning rate.
    learning_rates: list[float] = field(default_factory=lambda: [1.0])
    tuning_share: float = 0.25  # of a step's rounds, for each try
    tuning_margin: float = 0.02  # a try that is not better by this says nothing: the middle of the rates is kept
    pairs: list[list[str]] = field(default_factory=list)  # [step, control step]: paired differences to report
    draws: int = 1000  # of the patient-level bootstrap


@dataclass
class Run:
    """One run: everything needed to repeat it."""

    name: str = "run"  # the folder below `out`; run: the curriculum's
    out: str = "runs"  # where a simulation keeps its runs
    seed: int = 1  # of everything that is drawn: starts, batches, dropout, faults
    curriculum: str = ""  # a file of configs/curriculum: which steps, in which order
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    data: Data = field(default_factory=Data)
    runtime: Runtime = field(default_factory=Runtime)
    steps: dict[str, Step] = field(default_factory=dict)
    controls: dict[str, Step] = field(default_factory=dict)  # steps that only a comparison runs, after the others
    with_controls: bool = False  # run the controls too, as a comparison does
    compare: Compare = field(default_factory=Compare)
    subgroups: list[str] = field(default_factory=list)  # of every step that names none itself
    age_cuts: list[float] = field(default_factory=lambda: [65.0])  # with them: years between the bands of age
    faults: dict[str, Any] = field(default_factory=dict)  # name -> what goes wrong on purpose, in simulations only
    continues: str | None = None  # an earlier run beside this one: its adapters and hospitals' shelves are the start
    # Of curriculum=evaluate: a bank that is scored at every center, nothing trained: a run's folder or an exported one,
    # or one adapter of it, as runs/first:tumour_ct.
    model: str | None = None
    compare_with: str | None = None  # a second bank: patient by patient, is `model` better than this one?
    plugins: list[str] = field(default_factory=list)  # own code of this machine (common/plugins.py); never in an order
    study: Any = None  # a table of runs that `python -m simulations compare study=NAME` makes
