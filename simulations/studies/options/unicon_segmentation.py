"""Options and steps of study=unicon_segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from simulations.studies.options.stages import Stage, StudySize

VARIANTS = {
    "scratch": ("UNETR from scratch", "no", "no"),
    "pma": ("decoder on the frozen encoder", "yes", "no"),
    "wma": ("LoRA and one linear layer", "no", "yes"),
    "both": ("LoRA and decoder", "yes", "yes"),
}
IMAGES = {"ct": "CT", "ctpet": "CT + PET"}
SHOWN = {"ct": ["CT"], "ctpet": ["CT", "PET"]}
ADAPTER = {
    ("scratch", "ct"): "scratch", ("scratch", "ctpet"): "scratch_pet", ("pma", "ct"): "decoder",
    ("pma", "ctpet"): "decoder_pet", ("wma", "ct"): "lora_linear", ("wma", "ctpet"): "lora_linear_pet",
    ("both", "ct"): "decoder_lora", ("both", "ctpet"): "decoder_lora_pet",
}  # fmt: skip


def stages() -> dict[str, Stage]:
    """The ablation's cells: every variant on CT and on CT + PET."""
    return {
        f"{variant}_{images}": Stage("tumour_ct", ADAPTER[variant, images], values={"modalities": SHOWN[images]})
        for variant, images in product(VARIANTS, IMAGES)
    }


@dataclass
class UniconSegmentationStudy(StudySize):
    """UNICON's segmentation ablation."""

    kind: str = "unicon_segmentation"
