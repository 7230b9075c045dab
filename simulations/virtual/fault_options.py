"""What a run's ``faults`` may say; `simulations.virtual.faults` makes them happen. No torch: a plan reads this, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from common.config.load import plain
from common.config.run import Run

FACTORS = {"straggler": 10.0, "scaled": 100.0, "sign_flip": 1.0, "alie": 1.0, "ipm": 3.0, "count_inflation": 1000.0}


FAULTS = (
    "alie", "count_inflation", "crash", "dropout", "duplicate", "inf", "ipm", "label_flip", "nan", "replay", "scaled",
    "sign_flip", "stale", "straggler", "wrong_keys", "wrong_shape",
)  # fmt: skip


@dataclass
class Fault:
    """Something that goes wrong on purpose in a simulation."""

    kind: str = "???"  # one of FAULTS: what happens
    centers: list[str] = field(default_factory=lambda: ["*"])  # whom it befalls; "*": everyone
    steps: list[str] = field(default_factory=lambda: ["*"])  # in which steps; "*": all
    rounds: list[int] = field(default_factory=list)  # empty: every round
    probability: float = 1.0  # of each center in each round, drawn from the run's seed
    factor: float | None = None  # of a kind that scales, slows down or inflates; null: the kind's own


def typed(run: Run) -> None:
    """A composed run's faults as `Fault`, every key and type checked."""
    run.faults = {name: plain(Fault, dict(given)) for name, given in run.faults.items()}


def problems(run: Run) -> Iterator[str]:
    """What is wrong with a run's faults, one sentence each."""
    for name, fault in run.faults.items():
        if fault.kind not in FAULTS:
            yield f"Fault '{name}' has kind '{fault.kind}'; it can be {', '.join(FAULTS)}."
        unknown = sorted(set(fault.steps) - {"*"} - set(run.steps))
        if unknown:
            yield f"Fault '{name}' names steps {unknown}; the run has {sorted(run.steps)}."
        if not 0 < fault.probability <= 1 or min([*fault.rounds, 1]) < 1:
            yield f"Fault '{name}' needs a probability in (0, 1] and rounds from 1."
