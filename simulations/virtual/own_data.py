"""What a step leaves open, read from one's own folder: structures and modalities ([all]), the spacing (0 mm) and the
passes in a round (0 epochs).

The answers become part of the command line, so that every arm and every worker composes the same run, and the run's
folder shows what was chosen.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from common.config.load import compose_run
from common.config.rules import ALL, left_open
from common.config.run import Run
from common.config.step import Step
from common.data.batch import CT, volumes_of
from common.errors import ConfigError, DataError

if TYPE_CHECKING:
    from client.data.layouts import Contents

LONGEST = 48  # voxels along a volume's longest side at the chosen spacing
STEP_MM = 0.5
OPTIMIZER_STEPS = 300  # of the middle center over all rounds; with 120 a small structure was missed (LOG, 2026-11-28)
MOST_EPOCHS = 10  # in a round: beyond it the centers' states drift apart


def settled(overrides: Sequence[str], *, say: Callable[[str], None] = print) -> tuple[str, ...]:
    """The command line with everything that its steps leave open; unchanged where they leave nothing open.

    Raises:
        ConfigError, DataError: the folder is not named, is not there, or cannot be used.
    """
    run = compose_run(overrides)
    slots = {"steps": run.steps, "controls": {k: v for k, v in run.controls.items() if k not in run.steps}}
    open_steps = {f"{group}.{name}": s for group, steps in slots.items() for name, s in steps.items() if left_open(s)}
    if not open_steps:
        return tuple(overrides)
    return (*overrides, *_answers(run, open_steps, say))


def _answers(run: Run, steps: dict[str, Step], say: Callable[[str], None]) -> list[str]:
    from client.data.layouts import contents
    from client.data.layouts.extent import median_extent
    from client.data.splits import split_cases

    if run.data.kind != "folder" or not run.data.root:
        raise ConfigError(
            f"The steps {', '.join(sorted(steps))} take their structures, images, spacing or epochs from a folder; "
            "name it: data=folder data.root=/path/to/folder."
        )
    found, cases = contents(Path(run.data.root), mapping=run.data.mapping, layout=run.data.layout)
    if not found.labeled or not found.modalities:
        raise DataError(
            f"'{run.data.root}' has {found.labeled} labels ({found.said}); a segmentation needs labeled images."
        )
    say(f"{run.data.root}: {found.said}")
    for note in found.notes:
        say(note)
    if len(found.centers) == 1:
        say(
            "All cases are one center's, so there is nothing to federate: name the others in centers.csv (columns case "
            "and center) or in layout.yaml."
        )
    spacing = spacing_for(*median_extent(cases))
    training = Counter(case.center for case in split_cases(cases, split=run.data.split)["train"])
    answers: list[str] = []
    for slot, step in steps.items():
        answers += _of_step(slot, step, found, spacing)
        if step.training.epochs == 0:
            answers.append(f"{slot}.training.epochs={epochs_for(training.values(), step)}")
    say(f"chosen: {' '.join(answer for answer in answers if not answer.startswith('+schema'))}")
    return answers


def _of_step(slot: str, step: Step, found: Contents, spacing: float) -> list[str]:
    answers, values = [], found.structures
    if ALL in step.modalities:
        images = volumes_of(found.modalities)
        answers += [f"{slot}.modalities=[{','.join(images)}]", *_parts(slot, step, images, found.reference)]
    if step.task.kind in ("grounding", "segmentation"):
        names = choose(values) if ALL in step.task.structures else list(step.task.structures)
        answers += [f"{slot}.task.structures=[{','.join(names)}]"] if ALL in step.task.structures else []
        within = nesting({name: values[name] for name in names if name in values})
        if within and step.task.kind == "segmentation" and not step.task.within:
            answers.append(f"++{slot}.task.within={_written(within)}")
    if min(step.view.spacing_mm) == 0:
        answers.append(f"{slot}.view.spacing_mm=[{','.join([f'{spacing:g}'] * 3)}]")
    return answers


def _parts(slot: str, step: Step, images: Sequence[str], reference: str) -> list[str]:
    """A patch embedding and a skip for each volume that the frozen model does not know; without a CT the reference
    image's starts as a copy of the CT's, else none would reach the frozen model at first."""
    own = {(spec.kind, spec.modality) for spec in step.adapter.parts.values() if hasattr(spec, "modality")}
    [features] = [spec.features for spec in step.adapter.parts.values() if spec.kind == "decoder"] or [0]
    answers = []
    for modality in (m for m in images if m != CT):
        for kind, name in (("patch_embed", "stem"), ("skip", "skip")):
            if (kind, modality) in own or (kind == "skip" and not features):
                continue
            place = f"{slot}.adapter.parts.{name}_{modality.lower()}"
            answers += [f"+schema/part@{place}={kind}", f"{place}.modality={modality}"]
            answers += [f"{place}.features={features}"] if kind == "skip" else []
            if kind == "patch_embed" and modality == reference and CT not in images:
                answers.append(f"{place}.init=copy")
    return answers


def choose(structures: dict[str, tuple[int, ...]]) -> list[str]:
    """All structures but those that others make up together: of whole, core and edge where whole is core and edge, the
    two."""
    return [
        name
        for name, values in structures.items()
        if {*values} != {v for other in structures.values() if {*other} < {*values} for v in other}
    ]


def nesting(values: dict[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Structures that lie within others."""
    inside = {name: [other for other in values if {*values[other]} < {*own}] for name, own in values.items()}
    return {name: others for name, others in inside.items() if others}


def spacing_for(extent_mm: Iterable[float], native_mm: Iterable[float]) -> float:
    """One spacing in mm: the images' own, or as coarse as makes their longest side LONGEST voxels."""
    needed = max(max(map(float, extent_mm)) / LONGEST, min(map(float, native_mm)))
    return math.ceil(needed / STEP_MM - 1e-6) * STEP_MM


def epochs_for(training: Iterable[int], step: Step) -> int:
    """Passes in a round that give the middle center about OPTIMIZER_STEPS over the step's rounds.

    Args:
        training: cases to train with, of each center.
    """
    batches = math.ceil(median([*training] or [1]) / step.training.batch)
    return min(max(round(OPTIMIZER_STEPS / (max(step.rounds, 1) * batches)), 1), MOST_EPOCHS)


def _written(within: dict[str, list[str]]) -> str:
    return json.dumps(within).replace('"', "").replace(" ", "")
