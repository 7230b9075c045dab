"""Ceilings: how large a step may be at all, whoever asks; the server's plan and every hospital check the same.

They are far above what a study needs and far below what would fill a machine or keep it busy without end. What a
hospital allows of that is its policy's: `client.policy`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from math import prod
from typing import Any

from common.config.adapter import (
    Adapter,
    DecoderPart,
    FullPart,
    FusionPart,
    LinearPart,
    LoraPart,
    MlpPart,
    ResolutionPart,
    SkipPart,
    UnetPart,
    UptakePart,
    VoxelLinearPart,
)
from common.config.federation import (
    CenteredClipFederation,
    Compression,
    FedDynFederation,
    Federation,
    Guards,
    NewtonFederation,
)
from common.config.methods.continual import (
    DerppMethod,
    EwcMethod,
    FeaturesMethod,
    FewShotMethod,
    LwfMethod,
    MergeMethod,
    MibMethod,
    OLoraMethod,
    OnlineEwcMethod,
    ProjectionMethod,
    RehearsalMethod,
)
from common.config.methods.drift import DittoMethod, FedDynMethod, LocalMethod, ProximalMethod
from common.config.privacy import DpSgd, NoisedSums, PatientPrivacy
from common.config.run import Run
from common.config.step import Selection, Step
from common.config.task import ClassificationTask, GroundingTask, PrognosisTask, SegmentationTask
from common.config.training import Training
from common.config.view import View

MOST_VOXELS = 512**3  # of a case's crop, and of a window
LONGEST_NAME = 100  # letters of anything that is a name; patterns and prompts may be longer
LONGEST_TEXT = 1000
WEEK_S = 7 * 24 * 3600.0

# Class -> option -> smallest and largest value; of a list or mapping, of each entry. An option that may be null may.
NUMBERS: dict[type, dict[str, tuple[float, float]]] = {
    ClassificationTask: {"weights": (0, 1e6)},
    Compression: {"group": (1, 1e6)},
    DittoMethod: {"strength": (0, 1e6)},
    DecoderPart: {"features": (1, 512)},
    DpSgd: {"clip": (0, 1e9), "batch": (0, 1e9), "draws": (0, 100_000)},
    FedDynFederation: {"alpha": (0, 1e6)},
    FedDynMethod: {"alpha": (0, 1e6)},
    DerppMethod: {"alpha": (0, 1e6)},
    EwcMethod: {"strength": (0, 1e9)},
    FewShotMethod: {"cases": (1, 1e6)},
    FeaturesMethod: {"strength": (0, 1e6)},
    MibMethod: {"strength": (0, 1e6)},
    MergeMethod: {"scale": (-1e6, 1e6), "density": (0, 1)},
    OLoraMethod: {"strength": (0, 1e6)},
    OnlineEwcMethod: {"strength": (0, 1e9), "decay": (0, 1)},
    ProjectionMethod: {"energy": (0, 1)},
    Federation: {"deadline_s": (0, WEEK_S), "at_least": (0, 10_000), "proximal": (0, 1e6), "personal": (0, 1e6)},
    FusionPart: {"width": (1, 8192), "dropout": (0, 1)},
    GroundingTask: {"most": (1, 100), "width": (1, 1024), "level": (-64, 63)},
    Guards: {"strikes": (0, 1e6)},
    CenteredClipFederation: {"iterations": (1, 1000)},
    LoraPart: {"rank": (1, 1024), "alpha": (0, 1e6), "dropout": (0, 1), "depth": (0, 1000), "ranks": (1, 1024),
               "side_rank": (0, 4096), "refresh_every": (1, 100_000)},
    LwfMethod: {"strength": (0, 1e6), "temperature": (1e-3, 1e3)},
    MlpPart: {"width": (1, 8192), "dropout": (0, 1)},
    RehearsalMethod: {"cases": (1, 1e6)},
    NewtonFederation: {"penalty": (0, 1e12), "penalties": (0, 1e12)},
    NoisedSums: {"clip": (0, 1e3)},
    PatientPrivacy: {"cohort": (0, 1e9), "cohorts": (0, 1e9), "noise_seed": (0, 1 << 53)},
    ProximalMethod: {"strength": (0, 1e6)},
    PrognosisTask: {"bins": (1, 512), "horizon_days": (0, 73_000), "cuts_days": (0, 73_000), "alpha": (0, 1e6),
                    "sigma": (1e-6, 1e6)},
    ResolutionPart: {"patch": (1, 512)},
    Selection: {"every": (1, 100_000)},
    SkipPart: {"features": (1, 512)},
    SegmentationTask: {"tolerance_mm": (0, 1e6), "smallest_ml": (0, 1e6)},
    Step: {"rounds": (0, 100_000), "age_cuts": (1, 120)},
    Training: {"epochs": (1, 10_000), "batch": (1, 4096), "learning_rate": (0, 1e3), "weight_decay": (0, 1e3),
               "clip_norm": (0, 1e9), "draw": (0, 1e6), "foreground": (0, 1)},
    UnetPart: {"widths": (1, 512)},
    UptakePart: {"width": (1, 512)},
    VoxelLinearPart: {"levels": (0, 64), "blurs": (0.1, 32), "voxels": (1, 100_000), "inside": (0.01, 0.99)},
    View: {"spacing_mm": (0.05, 100), "size": (1, 4096), "window": (1, 4096), "ct_hu": (-1e5, 1e5),
           "overlap": (0, 0.9)},
}  # fmt: skip

# Class -> list or mapping -> most entries.
ENTRIES: dict[type, dict[str, int]] = {
    Adapter: {"parts": 64},
    ClassificationTask: {"classes": 256, "weights": 256},
    FullPart: {"tensors": 64},
    GroundingTask: {"structures": 64, "phrases": 64, "attributes": 64, "outlined": 10_000},
    LinearPart: {"variables": 256},
    LocalMethod: {"tensors": 64},
    LoraPart: {"sites": 32},
    NewtonFederation: {"penalties": 16},
    PatientPrivacy: {"cohorts": 10_000},
    PrognosisTask: {"cuts_days": 512},
    MergeMethod: {"of": 64},
    RehearsalMethod: {"at": 10_000},
    SegmentationTask: {"structures": 64, "within": 64, "outlined": 10_000},
    Step: {"modalities": 16, "modes": 64, "methods": 16, "train_parts": 64, "subgroups": 5, "age_cuts": 8},
    VoxelLinearPart: {"levels": 64, "blurs": 32},
    Training: {"views": 16},
    UnetPart: {"widths": 8},
    View: {"intensities": 16, "mirrors": 3},
}
PROSE = frozenset({"attributes", "classes", "phrases", "tensors", "local", "train_parts"})  # may be longer than a name


def ceiling_problems(step: Step, run: Run) -> Iterator[str]:
    """Whatever of a step is too large, too long, not finite or not positive, one sentence each."""
    yield from _of(step, "")
    for name, sides in (("spacing_mm", 3), ("size", 3), ("window", 3), ("ct_hu", 2)):
        value = getattr(step.view, name)
        if value is not None and len(value) != sides:
            yield f"view.{name} has {len(value)} entries; it must have {sides}."
    for name in ("size", "window"):
        sides = getattr(step.view, name)
        if sides is not None and len(sides) == 3 and prod(max(side, 0) for side in sides) > MOST_VOXELS:
            yield f"view.{name} {list(sides)} has more than {MOST_VOXELS} voxels."


def _of(owner: Any, path: str) -> Iterator[str]:
    """Problems of a dataclass's options, and of those inside them."""
    for option in fields(owner):
        value, here = getattr(owner, option.name), f"{path}{option.name}"
        entries, numbers = (_limit(table, owner, option.name) for table in (ENTRIES, NUMBERS))
        if entries is not None and isinstance(value, list | dict) and len(value) > entries:
            yield f"{here} has {len(value)} entries; it can have at most {entries}."
            continue
        for entry, inner in _flat(value, here):
            yield from _of(inner, f"{entry}.") if is_dataclass(inner) else _one(inner, entry, option.name, numbers)


def _one(value: Any, path: str, name: str, allowed: tuple[float, float] | None) -> Iterator[str]:
    if isinstance(value, str):
        most = LONGEST_TEXT if name in PROSE else LONGEST_NAME
        if len(value) > most:
            yield f"{path} has {len(value)} letters; it can have at most {most}."
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            yield f"{path} is {value}, which is no finite number."
        elif allowed is not None and not allowed[0] <= value <= allowed[1]:
            yield f"{path} is {value:g}; it can be {allowed[0]:g} to {allowed[1]:g}."


def _limit(table: dict[type, dict[str, Any]], owner: Any, name: str) -> Any:
    """What a table says of an option, of the class or the nearest one that it extends."""
    return next((table[kind][name] for kind in type(owner).__mro__ if name in table.get(kind, {})), None)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every single value within lists and mappings, their keys among them, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield path, str(key)
            yield from _flat(inner, f"{path}.{str(key)[:LONGEST_NAME]}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _flat(inner, path)
    else:
        yield path, value
