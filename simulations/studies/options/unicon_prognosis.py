"""Options and steps of study=unicon_prognosis."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from simulations.studies.options.stages import Stage, StudySize

INPUTS = {"text": "text", "image": "image", "both": "image + text"}
WITHIN = {"pma": "no", "wma": "yes"}
LOSSES = {"mtlr": "MTLR", "deephit": "DeepHit"}
SHOWN = {"text": ["EHR"], "image": ["CT"], "both": ["CT", "EHR"]}
ADAPTER = {
    ("text", "pma"): "text_pma", ("text", "wma"): "text_wma", ("image", "pma"): "image_pma",
    ("image", "wma"): "image_prognosis", ("both", "pma"): "both_pma", ("both", "wma"): "unicon_prognosis",
}  # fmt: skip


def stages() -> dict[str, Stage]:
    """The table's cells: every input, with and without LoRA within the encoders, under both losses."""
    return {
        f"{given}_{within}_{loss}": Stage("relapse", ADAPTER[given, within], loss, {"modalities": SHOWN[given]})
        for given, within, loss in product(INPUTS, WITHIN, LOSSES)
    }


@dataclass
class UniconPrognosisStudy(StudySize):
    """UNICON's prognosis table."""

    kind: str = "unicon_prognosis"
    # What runs beside the federation, itself included.
    arms: list[str] = field(
        default_factory=lambda: ["federated", "federated Newton", "centralized", "random backbone", "untrained"]
    )
