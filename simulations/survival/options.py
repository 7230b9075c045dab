"""CoxStudy: the options that every study of Cox models at several centers has."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CoxStudy:
    """Cox models at several centers: pooled, federated, local, one center left out."""

    kind: str = ""
    about: str = ""  # where the data come from; said on the page
    inputs: dict[str, list[str]] = field(default_factory=dict)  # name of a set of inputs -> what is in it
    known_flags: bool = True  # false: the ablation without the flags that reveal who records what
    folds: int = 5  # of the cross-validation
    repeats: int = 5  # of the cross-validation, with other splits
    across_folds: bool = False  # also compare patients of different test folds; for centers of a few patients
    # Of the ridge, of which the training folds choose.
    penalties: list[float] = field(default_factory=lambda: [1.0, 3.0, 10.0, 30.0, 100.0])
    sgd_rounds: int = 50  # of FedAvg and FedAdam
    local_steps: int = 5  # FedAvg's and FedAdam's gradient steps in a round
    local_rate: float = 0.1  # their learning rate
    server_rate: float = 0.03  # FedAdam's
    draws: int = 2000  # of the bootstrap
    horizon_months: int = 24  # when predicted and observed survival are compared
