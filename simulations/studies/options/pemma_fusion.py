"""Options and stages of study=pemma_fusion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simulations.studies.options.stages import Stage, StudySize

MODES = ("CT", "PET", "CT+PET")
KINDS = {"lora": "LoRA", "dora": "DoRA"}
ARRIVALS: dict[str, dict[str, Any]] = {  # what arrives at a new center -> what of its stage differs
    "ct": {"train_parts": ["alone_ct"], "training": {"draw": {"CT": 1.0, "PET": 0.0, "CT+PET": 0.0}}},
    "pet": {
        "train_parts": ["stem_pet", "skip_pet", "alone_pet"],
        "training": {"draw": {"CT": 0.0, "PET": 1.0, "CT+PET": 0.0}},
    },
    "ctpet": {},
}


def stages() -> dict[str, Stage]:
    """The CT model, its rivals at MDA, PEMMA's seven stages with LoRA and with DoRA, and the prognosis extension."""
    at_mda = {"centers": ["MDA"], "starts_from": "ct"}
    found = {
        "ct": Stage("pemma_ct"),
        "early": Stage("tumour_ct", "full_pet", values={"modalities": ["CT", "PET"], "modes": list(MODES), **at_mda}),
        "ct_only": Stage("tumour_ct", "full_ct", values=at_mda),
        "pet_only": Stage("tumour_ct", "full_pet", values={"modalities": ["PET"], **at_mda}),
    }
    for kind in KINDS:
        adapter = "pemma_dora" if kind == "dora" else ""
        found[f"mda_{kind}"] = Stage("pemma", adapter)
        for center, before in (("HGJ", f"mda_{kind}"), ("HMR", f"hgj_ctpet_{kind}")):
            for arriving, differs in ARRIVALS.items():
                values = {"centers": [center], "starts_from": before, **differs}
                found[f"{center.lower()}_{arriving}_{kind}"] = Stage("pemma", adapter, values=values)
    images = {"modalities": ["CT", "PET"], "starts_from": "relapse_ct"}
    with_record = {"modalities": ["CT", "PET", "EHR"], "starts_from": "relapse_pet"}
    return found | {
        "relapse_ct": Stage("pemma_relapse"),
        "relapse_pet": Stage("pemma_relapse", "image_pet_prognosis", values=images),
        "relapse_ehr": Stage("pemma_relapse", "pet_prognosis", values=with_record),
    }


@dataclass
class PemmaFusionStudy(StudySize):
    """PEMMA beside the ways to fuse CT and PET, and what its stages forget."""

    kind: str = "pemma_fusion"
    # What runs beside the federation, itself included.
    arms: list[str] = field(default_factory=lambda: ["federated", "random backbone", "untrained"])
