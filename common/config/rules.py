"""Rules between fields, each a function that returns finished sentences; all broken rules are reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

from common.adapters.fitting import misfits
from common.batch import IMAGES, MODALITIES, parse_mode
from common.config.schema import Run, Step
from common.errors import ConfigError

DATA_KINDS = ("folder", "phantom")
CROPS = ("center", "head_neck", "none")
PET_SCALES = ("suv", "zscore")
WEIGHTINGS = ("n", "sqrt", "uniform")


def check_run(run: Run) -> None:
    """Raise one ConfigError that lists every broken rule."""
    problems = broken_rules(run)
    if problems:
        raise ConfigError("\n".join(problems))


def broken_rules(run: Run) -> list[str]:
    """Every broken rule of a run, one sentence each, in the order of its steps."""
    problems = list(_run_rules(run))
    for step in run.steps.values():
        problems += [f"Step '{step.name}': {problem}" for rule in STEP_RULES for problem in rule(step, run)]
    return problems


def _run_rules(run: Run) -> Iterator[str]:
    if not run.steps:
        yield "The run has no steps; choose a curriculum: curriculum=quickstart."
    if run.runtime.device not in ("cpu", "cuda"):
        yield f"runtime.device is '{run.runtime.device}'; it can be cpu or cuda."
    if run.runtime.threads < 1 or run.runtime.workers < 0:
        yield "runtime.threads must be at least 1 and runtime.workers at least 0 (0: one per core)."
    if run.data.kind not in DATA_KINDS:
        yield f"data.kind is '{run.data.kind}'; it can be {', '.join(DATA_KINDS)}."
    if not run.data.root:
        yield "data.root is not set; set it to a folder in a HECKTOR layout."
    split = run.data.split
    if split.folds < 2 or not 0 <= split.fold < split.folds or not 0 < split.validation < 1:
        yield f"data.split has fold {split.fold} of {split.folds}, validation {split.validation}; use 2 or more folds."
    if not run.compare.learning_rates or min(run.compare.learning_rates) <= 0 or not 0 < run.compare.tuning_share <= 1:
        yield "compare.learning_rates takes positive factors ([1]: no tuning), compare.tuning_share a share in (0, 1]."
    written = [step.writes or name for name, step in run.steps.items()]
    for name in sorted({name for name in written if written.count(name) > 1}):
        yield f"Several steps write lineage '{name}'; that needs a continual method, and none is in this release."


def _task(step: Step, run: Run) -> Iterator[str]:
    if step.task is None:
        yield "it has no task; set task@steps.NAME.task=deephit, findings or tumour."
    elif step.task.kind == "classification" and not step.task.classes:
        yield "its classification task has no classes."


def _modalities(step: Step, run: Run) -> Iterator[str]:
    unknown = sorted(set(step.modalities) - set(MODALITIES))
    if unknown:
        yield f"unknown modalities {unknown}; known: {', '.join(MODALITIES)}."
    for mode in step.modes:
        if not {*parse_mode(mode)} <= {*step.modalities}:
            yield f"modes has '{mode}', which is not made of its modalities {step.modalities} joined by '+'."


def _parts(step: Step, run: Run) -> Iterator[str]:
    yield from misfits(step)
    if step.rounds > 0 and not step.adapter.parts:
        yield "it has rounds but nothing to train; give it an adapter or set rounds to 0."


def _view(step: Step, run: Run) -> Iterator[str]:
    view = step.view
    if len(view.spacing_mm) != 3 or len(view.window) != 3 or (view.size is not None and len(view.size) != 3):
        yield "view.spacing_mm, view.size and view.window take three numbers each (depth, height, width)."
        return
    if min(view.spacing_mm) <= 0 or min(view.window) <= 0:
        yield "view.spacing_mm and view.window must be positive."
    if view.crop not in CROPS:
        yield f"view.crop is '{view.crop}'; it can be {', '.join(CROPS)}."
    if view.pet not in PET_SCALES:
        yield f"view.pet is '{view.pet}'; it can be {', '.join(PET_SCALES)}."
    if view.size is not None and prod(view.size) < prod(view.window):
        yield f"view.size {view.size} is smaller than view.window {view.window}."
    if step.task is not None and step.task.kind != "segmentation" and view.size != view.window:
        yield "only segmentation works by windows; make view.size equal to view.window."
    if view.ct_hu[0] >= view.ct_hu[1]:
        yield f"view.ct_hu {view.ct_hu} must rise."


def _order(step: Step, run: Run) -> Iterator[str]:
    names = list(run.steps)
    if step.starts_from is not None and step.starts_from not in names[: names.index(step.name)]:
        earlier = names[: names.index(step.name)]
        yield f"it starts from '{step.starts_from}', which is not an earlier step; earlier: {earlier or 'none'}."
    if step.rounds < 0:
        yield f"rounds is {step.rounds}; it must be 0 or more."
    if step.selection.every < 1:
        yield f"selection.every is {step.selection.every}; it must be 1 or more."


def _federation(step: Step, run: Run) -> Iterator[str]:
    spec = step.federation
    if spec.weighting not in WEIGHTINGS:
        yield f"federation.weighting is '{spec.weighting}'; it can be {', '.join(WEIGHTINGS)}."
    if not 0 < spec.quorum <= 1:
        yield f"federation.quorum is {spec.quorum}; it is a share in (0, 1]."
    if spec.deadline_s <= 0:
        yield f"federation.deadline_s is {spec.deadline_s}; it must be positive."


def _training(step: Step, run: Run) -> Iterator[str]:
    training = step.training
    for mode, weight in training.draw.items():
        stray = sorted({*parse_mode(mode)} - ({*IMAGES} & {*step.modalities}))
        if stray or weight < 0:
            yield (
                f"training.draw has '{mode}' with weight {weight}; its modes are images among the step's modalities "
                f"{step.modalities}, joined by '+', with weights of 0 or more."
            )
    if training.draw and not any(weight > 0 for weight in training.draw.values()):
        yield "training.draw has no mode of positive weight; give one, or leave the draw empty."
    if training.batch < 1 or training.epochs < 1 or training.learning_rate <= 0:
        yield "training.batch and training.epochs must be 1 or more and training.learning_rate positive."


STEP_RULES: list[Callable[[Step, Run], Iterator[str]]] = [
    _task, _modalities, _parts, _view, _order, _federation, _training,
]  # fmt: skip
