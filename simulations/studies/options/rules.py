"""Options of the studies of aggregation rules: without and with attackers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class AggregationStudy:
    """Every aggregation rule on one segmentation and one prognosis step."""

    kind: str = "aggregation"
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])  # each a run of every rule
    steps: list[str] = field(default_factory=lambda: ["tumour_ct", "relapse"])  # each a table
    draws: int = 200  # of the patient-level bootstrap


@dataclass
class AttacksStudy:
    """Every attack against every robust rule, with none, one and two attackers."""

    kind: str = "attacks"
    seeds: list[int] = field(default_factory=lambda: [1])  # each a run of every row
    step: str = "tumour_ct"  # the one that is attacked
    attackers: list[str] = field(default_factory=lambda: ["CHUP", "CHUS"])  # the first f of them attack
    # Kinds of faults.
    attacks: list[str] = field(default_factory=lambda: ["scaled", "sign_flip", "ipm", "alie", "label_flip", "nan"])
    draws: int = 200  # of the patient-level bootstrap
