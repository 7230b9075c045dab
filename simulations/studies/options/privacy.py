"""Options of the study of what privacy costs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PrivacyStudy:
    """Scores without privacy and at several epsilons: adapters on the phantom, heads and noised fits on a table."""

    kind: str = "privacy"
    seeds: list[int] = field(default_factory=lambda: [1])  # each a run of every row
    epsilons: list[float] = field(default_factory=lambda: [20.0, 8.0, 3.0])  # of each step; without privacy comes first
    cohort: int = 60  # public bound of a center's training patients
    batch: int = 20  # patients expected in a draw
    draws: int = 2  # of patients in a round
    clip: float = 1.0  # the longest gradient of a patient
    bootstrap: int = 200  # draws of patients
    table: str = ""  # patients of several centers, comma-separated; empty: heads on records are left out
    mapping: str = ""  # what its columns mean, such as configs/mapping/hn4.yaml
    outcome: str = "rfs"  # of the table
    variables: list[str] = field(default_factory=list)  # of the records; empty: all that the mapping has
    folds: int = 5  # of the table's cross-validation
    repeats: int = 3  # of it, with other splits and other noise
    bins: int = 4  # of the hazard model's grid
    horizon_days: int = 1825  # where the grid ends
    penalty: float = 1.0  # of the noised fits
    questions: int = 2  # of a noised fit
