"""What a run names must exist or fit: metrics, structures, windows, its own folder, its centers. No torch is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from common.config.backbones import declared_multiple
from common.config.options import COMPARED_TASKS, CT_GRID
from common.config.privacy import scores_are_noised
from common.config.run import Run
from common.config.step import Step
from common.data.sources import named_sources
from common.errors import suggestion

LOSS = "loss"  # any task's mean loss per case
LABELS = {"phantom": ("GTVp", "GTVn")}  # kind of data -> what is outlined there; elsewhere the folder decides
ORGANS = ("brain", "benign_node", "parotid", "thyroid")  # what the phantom outlines too, where data.organs asks for it


def metrics_of(task: Any) -> list[str] | None:
    """Metrics by which validation can choose a round of a task: those that its sums define, and the loss.

    None for a task of one's own: only its code knows.
    """
    if task.kind == "segmentation":
        names = ["dsc_agg", "dice"]
        return [*names, *(f"{name}_{structure}" for name in names for structure in task.structures), LOSS]
    if task.kind == "grounding":
        names = ["ap", "ap50", "ap75"]
        return [*names, *(f"{name}_{structure}" for name in names for structure in task.structures), LOSS]
    if task.kind == "classification":
        several = task.classes if len(task.classes) > 1 else []
        found = ["auroc", "auprc", "balanced_accuracy"]
        return [*found, *(f"{name}_{label}" for name in found[:2] for label in several), LOSS]
    if task.kind == "masked":
        several = [source.name for source in named_sources(task.sources)] if len(task.sources) > 1 else []
        return ["restored", *(f"restored_{name}" for name in several), LOSS]
    if task.kind != "prognosis":
        return None
    return ["c_index", "antolini", "nll"] if task.loss == "cox" else ["c_index", "antolini", LOSS]


def name_problems(run: Run) -> Iterator[str]:
    """A run's name becomes the folder that it keeps everything in."""
    for what, name in (("name", run.name), *((f"the name of step {key}", key) for key in run.steps)):
        parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
        if len(parts) != 1 or parts & {"..", "/", "\\"} or name.startswith((".", "~")) or name != name.strip():
            yield (
                f"{what} is '{name}', which is no name of a single folder; use letters, digits, '-' and '_', and "
                "out=FOLDER to keep runs elsewhere."
            )


def metric_problems(step: Step, run: Run) -> Iterator[str]:
    """selection.metric is one that the step's task has."""
    metric = step.selection.metric
    if step.task is None or not metric or metric.endswith("_across_centers"):
        return
    known = metrics_of(step.task)
    if known is None:
        return
    if metric not in known and not (step.task.kind == "prognosis" and metric == LOSS):
        yield (
            f"selection.metric is '{metric}', which a {step.task.kind} step does not have; it can be "
            f"{', '.join(known)}.{suggestion(metric, known)}"
        )


def structure_problems(step: Step, run: Run) -> Iterator[str]:
    """Structures are named once each, and are outlined in the run's data where that is known."""
    if step.task is None or step.task.kind not in ("grounding", "segmentation"):
        return
    names = step.task.structures
    if not names:
        yield "its task names no structure; set task.structures."
    for name in _twice(names):
        yield f"task.structures names '{name}' twice."
    outlined = (*LABELS.get(run.data.kind, ()), *(ORGANS if run.data.organs else ()))
    unknown = sorted(set(names) - set(outlined)) if outlined and run.data.structures is None else []
    if outlined and unknown:
        yield (
            f"task.structures has {', '.join(unknown)}, which the {run.data.kind} cohort does not outline; it has "
            f"{', '.join(outlined)}.{suggestion(unknown[0], outlined)}"
        )


def window_problems(step: Step, run: Run) -> Iterator[str]:
    """The window is made of whole patches of the frozen model, as it declares them, or of the step's own."""
    multiple = declared_multiple(run.backbone)
    own = [part for part in step.adapter.parts.values() if getattr(part, "kind", "") == "resolution"]
    if own:
        multiple = tuple(own[0].patch) if own[0].patch is not None and len(own[0].patch) == 3 else None
    window = step.view.window
    if multiple is None or len(window) != 3 or min(multiple) < 1:
        return
    if any(side % whole for side, whole in zip(window, multiple, strict=True)):
        whose = "part's own" if own else f"backbone's ({run.backbone.kind} {run.backbone.config})"
        yield (
            f"view.window {list(window)} is not made of whole patches: its sides (depth, height, width) must be "
            f"multiples of this {whose} {list(multiple)}; the nearest is {_fitting(step, multiple)}."
        )


def _fitting(step: Step, multiple: Sequence[int]) -> str:
    """The nearest window of whole patches, as options; with a size that is the window's, or smaller than it, too."""
    view = step.view
    window = [max(1, round(side / whole)) * whole for side, whole in zip(view.window, multiple, strict=True)]
    small = view.size is not None and (view.size == view.window or any(map(int.__lt__, view.size, window)))
    written = f"[{','.join(map(str, window))}]"
    names = ("size", "window") if small else ("window",)
    return " ".join(f"steps.{step.name}.view.{name}={written}" for name in names)


def twice_problems(step: Step, run: Run) -> Iterator[str]:
    """A center named twice would count twice."""
    for option, names in (("centers", step.centers), ("evaluate_at", step.evaluate_at)):
        for name in _twice(names):
            yield f"{option} names '{name}' twice."


def compared_problems(run: Run) -> Iterator[str]:
    """A step is compared with an earlier one whose answers are about the same."""
    names = list(run.steps)
    for name, step in run.steps.items():
        other = step.compared_with
        if other is None:
            continue
        if other not in names[: names.index(name)]:
            earlier = ", ".join(names[: names.index(name)]) or "none"
            yield f"Step '{name}' is compared with '{other}', which is not an earlier step; earlier: {earlier}."
        elif why := not_comparable(run.steps[other], step):
            yield f"Step '{name}' cannot be compared with '{other}': {why}."


def not_comparable(first: Step, second: Step) -> str:
    """Why two models' scores of one patient cannot be laid side by side, as a phrase; empty where they can."""
    a, b = first.task, second.task
    if a is None or b is None or a.kind != b.kind:
        return "they answer different questions"
    if b.kind not in COMPARED_TASKS:
        return f"scores of {b.kind} are not compared patient by patient; {', '.join(COMPARED_TASKS)} are"
    if any(scores_are_noised(step.privacy) for step in (first, second)):
        return "scores of one carry noise (privacy.score_epsilon), and paired ones carry none"
    for option in ("structures", "within", "outlined", "classes", "form", "target"):
        if getattr(a, option, None) != getattr(b, option, None):
            return f"task.{option} is {getattr(a, option, None)} in one and {getattr(b, option, None)} in the other"
    if first.region != second.region:
        return f"one is of {first.region}, the other of {second.region}"
    where = {step.view.score_on for step in (first, second)}
    grids = [(step.view.spacing_mm, step.view.size, step.view.crop) for step in (first, second)]
    if b.kind == "segmentation" and where != {CT_GRID} and (len(where) > 1 or grids[0] != grids[1]):
        return f"their masks lie on different grids; set view.score_on={CT_GRID} in both"
    if getattr(first.federation, "secure_aggregation", False) or getattr(
        second.federation, "secure_aggregation", False
    ):
        return "it has secure sums, and each center's own difference is told"
    if stays_at_center(first) or stays_at_center(second):
        return "a part of it stays at each center, so that there is no one model"
    return ""


def stays_at_center(step: Step) -> bool:
    """Whether each center has tensors, a standardisation or a model of its own."""
    own = getattr(step.federation, "local", None) or getattr(step.federation, "personal", None)
    return bool(own) or harmonizes(step)


def harmonizes(step: Step) -> bool:
    """Whether frozen features are harmonized over the centers."""
    return any(getattr(part, "harmonize", "") for part in step.adapter.parts.values())


def _twice(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
