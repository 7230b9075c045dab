"""Step: one entry of the curriculum, pure data, sent as JSON with every message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from common.config.adapter import Adapter
from common.config.federation import MeanFederation
from common.config.training import Training
from common.config.view import View

KEPT = BEST, LAST = ("best", "last")  # selection.keep


@dataclass
class Selection:
    """The validation rule: which round's state is kept. Test cases are never looked at."""

    metric: str = ""  # empty: the task's primary metric
    every: int = 1  # rounds between validations
    # best: by validation; last: the last round, fixed in advance, and nothing is validated. Empty: best, and last under
    # privacy, since to choose a round is to ask its validation patients.
    keep: str = ""


@dataclass
class Step:
    """One entry of the curriculum: pure data, sent as JSON with every message."""

    name: str = ""  # for ledger and report; empty: its key
    task: Any = None
    # What a case may show: CT, PET, EHR (the report), RECORD, or another image.
    modalities: list[str] = field(default_factory=lambda: ["CT"])
    modes: list[str] = field(default_factory=list)  # also scored from these alone: [CT, PET, CT+PET]; empty: from all
    adapter: Adapter = field(default_factory=Adapter)
    # What keeps centers together or earlier tasks known, in this order: [ewc], or [{kind: ewc, strength: 10}].
    methods: list[Any] = field(default_factory=list)
    federation: Any = None  # null: the mean; a default of its own kind could not be replaced by another kind
    view: View = field(default_factory=View)
    training: Training = field(default_factory=Training)
    selection: Selection = field(default_factory=Selection)
    privacy: Any = None  # null: none; dp_sgd: noise that hides whether a patient took part
    centers: list[str] = field(default_factory=lambda: ["*"])  # who trains; "*": every center that can
    evaluate_at: list[str] = field(default_factory=lambda: ["*"])  # who scores it; "*": every center
    rounds: int = 0  # 0: evaluated, never trained
    budget: str = ""  # "500 steps" of the optimizer in a row, or "2000 cases": rounds follow; empty: rounds count
    starts_from: str | None = None  # an earlier step whose parts are the start
    writes: str | None = None  # lineage; null: the step's own name, so nothing can overwrite it
    train_parts: list[str] = field(default_factory=lambda: ["*"])  # the others stay at their start
    # Test scores are also told by these: age, hpv, scanner, sex, t_stage (common/data/subgroups.py); empty: the run's.
    subgroups: list[str] = field(default_factory=list)
    age_cuts: list[float] = field(default_factory=lambda: [65.0])  # years between the bands of age
    stands_on: str | None = None  # an earlier step that is merged into the frozen model first; null: the model as it is
    # An earlier step of the same question: both score the same test patients, and the difference is told; null: none.
    compared_with: str | None = None
    region: str = "head_neck"  # of the body; another cohort may put its own in the place of head_neck

    def __post_init__(self) -> None:
        self.federation = MeanFederation() if self.federation is None else self.federation


def is_validated(step: Step, number: int) -> bool:
    """Whether a step looks at its validation cases after this round: the start, every so many rounds, and the last;
    never where the round that is kept is fixed in advance."""
    if keeps_last(step):
        return False
    return number % step.selection.every == 0 or number == step.rounds


def keeps_last(step: Step) -> bool:
    """Whether the round that a step keeps is fixed in advance."""
    return (step.selection.keep or (BEST if step.privacy is None else LAST)) == LAST
