"""Overlays: CT, PET, the expert's contour and the prediction of the best, a median and the worst test case, as PNGs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from common.config.options import CT_GRID
from common.config.run import Run
from common.config.step import Step
from common.data.batch import CT, PET, volumes_of
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.coordinator import run_id_of
from server.report.report import Overlay
from server.run.folder import RunFolder
from simulations.comparison.kept import key_of, observed_of
from simulations.comparison.patients import Picture, open_centers, pictures

# Okabe and Ito's: told apart by most color-blind readers, and by line style without any color.
EXPERT, PREDICTION = ("#F0E442", "#CC79A7"), ("#D55E00", "#56B4E9")  # GTVp, GTVn
SHOWN = 4  # centers beyond which a step has enough of them to be shown
ZOOM = 0.7  # of the view's width, around what was drawn


def overlays_of(run: Run, folder: RunFolder) -> list[Overlay]:
    """The best, median and worst test case of the segmentation step that most centers evaluated, the fullest one."""
    ledger, bank = Ledger(folder.ledger), AdapterBank(folder.bank)
    finished = [e for e in ledger.events("step_finished") if run.steps[e["step"]].task.kind == "segmentation"]
    if not finished:
        return []
    event = max(finished, key=lambda e: (min(len(e["evaluated_at"]), SHOWN), len(run.steps[e["step"]].modalities)))
    step = run.steps[event["step"]]
    files = folder.center_files()
    torch.set_num_threads(run.runtime.threads)
    base = ledger.events("run_started")[0]["base"]
    state, observed = bank.get(key_of(ledger, bank, event)), observed_of(run, folder, event)
    centers = open_centers(files, sorted({one.center for one in observed}))
    kept = {"since": event["kept_round"], "run_id": run_id_of(ledger)}
    return [_overlay(step, one) for one in pictures(run, step, state, centers, observed, base=base, **kept)]


def _overlay(step: Step, picture: Picture) -> Overlay:
    each = ", ".join(f"{name} {value:.2f}" for name, value in picture.dice.items())
    each = f" ({each})" if len(picture.dice) > 1 else ""
    grid = "the CT's own grid" if step.view.score_on == CT_GRID else "the training grid"
    among = f"of {picture.cases} test cases" if picture.cases > 1 else "the only test case"
    return Overlay(
        title=f"{picture.rank} {among}: Dice {picture.mean_dice:.2f}{each}",
        caption=f"{picture.center}, {step.name}. Dashed: the expert; solid: the prediction. Dice is on {grid}; the "
        "picture shows the training grid, cut through the largest labeled area.",
        png=draw(picture, step.task.structures),
    )


def draw(picture: Picture, structures: Sequence[str]) -> bytes:
    """A PNG that is readable on a phone: a column per modality and a row per plane; of one modality, a row of both."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [(CT, "gray", (-0.25, 0.35)), (PET, "gray_r", (-1.0, 6.0))]
    others = [(name, "gray", (-2.0, 4.0)) for name in volumes_of(picture.batch.inputs) if name not in (CT, PET)]
    images = [image for image in [*shown, *others] if image[0] in picture.batch.inputs]
    center = _center_of(picture.truth if bool(picture.truth.any()) else picture.prediction)
    panels = [(image, axis) for axis in (0, 1) for image in images]  # axial, coronal
    columns = max(2, len(images))
    rows = len(panels) // columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 3.75 * rows + 0.7), squeeze=False, layout="constrained"
    )
    figure.set_facecolor("black")
    for plane, ((modality, colors, limits), axis) in zip(axes.flat, panels, strict=True):
        volume = picture.batch.inputs[modality][0, 0].numpy()
        height, width = [mm for n, mm in enumerate(picture.spacing_mm) if n != axis]
        plane.imshow(
            np.take(volume, center[axis], axis), cmap=colors, vmin=limits[0], vmax=limits[1], origin="lower",
            aspect=height / width, interpolation="bicubic",
        )  # fmt: skip
        for number, _ in enumerate(structures, start=1):
            _contour(
                plane,
                np.take(picture.prediction.numpy() == number, center[axis], axis),
                _color(PREDICTION, number),
                "solid",
            )
            _contour(
                plane, np.take(picture.truth.numpy() == number, center[axis], axis), _color(EXPERT, number), "dashed"
            )
        _zoom(
            plane, [n for k, n in enumerate(volume.shape) if k != axis], [n for k, n in enumerate(center) if k != axis]
        )
        plane.set_axis_off()
        plane.set_title(f"{modality}, {('axial', 'coronal')[axis]}", color="white", fontsize=18)
    _legend(figure, structures)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _color(colors: Sequence[str], number: int) -> str:
    return colors[(number - 1) % len(colors)]


def _contour(axes, mask: np.ndarray, color: str, style: str) -> None:
    from matplotlib.patheffects import withStroke

    if mask.any() and not mask.all():
        drawn = axes.contour(mask.astype(float), levels=[0.5], colors=color, linestyles=style, linewidths=2.4)
        drawn.set_path_effects([withStroke(linewidth=4.2, foreground="black")])  # also seen on a white PET


def _zoom(axes, shape: Sequence[int], center: Sequence[int]) -> None:
    """To the middle part of a slice (rows, columns) around the labeled area, inside the slice."""
    limits = []
    for count, middle in zip(shape, center, strict=True):
        kept = ZOOM * count
        first = min(max(middle - kept / 2, 0), count - kept)
        limits.append((first - 0.5, first + kept - 0.5))
    axes.set_ylim(*limits[0])
    axes.set_xlim(*limits[1])


def _legend(figure, structures: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    kinds: tuple[tuple[str, Sequence[str], Literal["dashed", "solid"]], ...] = (
        ("expert", EXPERT, "dashed"),
        ("prediction", PREDICTION, "solid"),
    )
    lines = [
        Line2D([], [], color=_color(colors, number), linestyle=style, linewidth=2.8, label=f"{name}, {who}")
        for number, name in enumerate(structures, start=1)
        for who, colors, style in kinds
    ]
    figure.legend(
        handles=lines,
        loc="outside lower center",
        ncols=2,
        fontsize=17,
        labelcolor="white",
        facecolor="black",
        edgecolor="none",
    )


def _center_of(labels: torch.Tensor) -> list[int]:
    """Per axis, the slice with the largest labeled area; the middle where there is none."""
    if not bool(labels.any()):
        return [n // 2 for n in labels.shape]
    others = [(1, 2), (0, 2), (0, 1)]
    return [int((labels > 0).sum(dim=dims).argmax()) for dims in others]
