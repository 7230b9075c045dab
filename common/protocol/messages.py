"""What the server asks of a center and what a center answers, before Flower turns either into bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.privacy.masking.asked import Masking

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
Sums = dict[str, np.ndarray]

OK = "ok"
STAGE = "query.stage"  # the question that brings a stage of a grown base; no patient is looked at for it
EXTRA = "./"  # before the names of what a rule asks for beside the state; part names hold neither
TOO_FEW_CASES = "declined.cases"  # to train; evaluation may still be possible


@dataclass
class Order:
    """One request to one center. Everything but the tensors comes from the run's config."""

    step: Step
    seed: int  # the run's; a center mixes in the step, its own code and the round
    round: int
    backbone: BackboneSpec
    base: str  # digest the center's frozen model must have
    split: Split
    skip_unreadable: bool = True
    minimum_cell: int = 1
    state: State = field(default_factory=dict)
    extra: State = field(default_factory=dict)  # what a rule sends beside the state: SCAFFOLD's control variates
    subset: str = ""  # evaluate: which split, validation or test
    mode: str = ""  # evaluate: show only these modalities ("PET"), of cases that have them; empty: all
    threshold: float | None = None  # evaluate: predicted risk above it counts as the high-risk group
    since: int = 0  # the last round whose update by this center was used: its vault goes on from there
    seeded: list[str] = field(default_factory=list)  # tensors that do not travel: the center makes them from the seed
    reference: str = ""  # digest of the state that the arrays are a difference to; empty: the arrays are the state
    digest: str = ""  # of the state that the center must end up with, where it is not simply the arrays
    best: int = 0  # the last used round of this center up to the best one so far: its shelf is kept, too
    met: bool = False  # updates of this center were used in this run: its vault must know the run
    attempt: int = 0  # how often the step has failed before: its rounds are then repeated
    continues: str = ""  # id of the run that this one continues: the step's shelf there is read at its start
    earlier: int = 0  # the last round of this center that counts in that run's step; 0: none
    known: Sums = field(default_factory=dict)  # what centers' sums have said so far: class counts, a temperature
    root: str = ""  # digest of the frozen model that the base grew from; empty: the base did not grow
    merged: list[str] = field(default_factory=list)  # keys of what was merged into the root, in order, to make the base
    teacher: str = ""  # key of the finished step whose model teaches this one; it is sent as stages are
    stage: str = ""  # stage: key of the entry that the order brings, to be merged into the base and kept
    parents: list[str] = field(default_factory=list)  # stage: of that entry; they are part of its key
    grown: str = ""  # stage: digest that the base must have afterwards
    compared: Step | None = None  # evaluate: a second model's step, whose state comes beside: told are paired sums
    run: str = ""  # the run's own id, from its ledger's first line: a center's vault has a shelf for each run and step
    masking: Masking | None = None  # the secure sum that the answer belongs to; none: it travels as it is
    id: str = ""  # digest of the order's content, made when it is packed: every reply echoes it

    @property
    def wants_curves(self) -> bool:
        """Whether the sums for curves and calibration are asked for: once a step is learned."""
        return self.threshold is not None or "temperature" in self.known

    @property
    def first_base(self) -> str:
        """Digest of the frozen model that the base grew from, the base's own where it did not grow."""
        return self.root or self.base


@dataclass
class Reply:
    """One center's answer: declared arrays, declared sums, and a status of codes and counts. Nothing else leaves."""

    center: str
    code: str = OK
    state: State = field(default_factory=dict)
    sums: Sums = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    round: int = 0  # of the order that this answers
    order: str = ""  # id of the order that this answers: an answer to another question is stale
    extra: State = field(default_factory=dict)  # what the rule asks for beside the state, by declared names
    told: str = ""  # the server's own words on why it cannot be used; does not travel

    @property
    def is_usable(self) -> bool:
        """Whether the center did what was asked."""
        return self.code == OK
