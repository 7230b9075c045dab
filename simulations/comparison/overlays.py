"""Overlays: CT, PET, the true contour and the prediction of some test cases, as PNGs for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch

from common.config.run import Run
from common.config.step import Step
from common.data.batch import CT, PET, volumes_of
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.report.report import Overlay
from server.run.folder import RunFolder
from simulations.comparison.patients import Picture, open_centers, pictures

COLORS = ("#E69F00", "#56B4E9")  # Okabe-Ito: GTVp, GTVn
SHOWN = 4


def overlays_of(run: Run, folder: RunFolder) -> list[Overlay]:
    """One test case of up to four centers for the last segmentation step that several centers evaluated."""
    ledger, bank = Ledger(folder.ledger), AdapterBank(folder.bank)
    finished = [e for e in ledger.events("step_finished") if run.steps[e["step"]].task.kind == "segmentation"]
    if not finished:
        return []
    event = max(finished, key=lambda e: (min(len(e["evaluated_at"]), SHOWN), len(run.steps[e["step"]].modalities)))
    step = run.steps[event["step"]]
    files = {path.stem: path for path in folder.centers.glob("*.yaml")}
    centers = open_centers(files, event["evaluated_at"][:SHOWN])
    torch.set_num_threads(run.runtime.threads)
    base = ledger.events("run_started")[0]["base"]
    return [_overlay(step, picture) for picture in pictures(run, step, bank.get(event["key"]), centers, base=base)]


def _overlay(step: Step, picture: Picture) -> Overlay:
    names = ", ".join(step.task.structures)
    return Overlay(
        title=f"{picture.center}, {step.name}",
        caption=f"Axial, coronal and sagittal slice through the largest labeled area of one test case. "
        f"Solid line: prediction; dashed line: expert label ({names}).",
        png=draw(picture, step.task.structures),
    )


def draw(picture: Picture, structures: Sequence[str]) -> bytes:
    """A PNG: a row per modality, a column per plane."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [(CT, "gray", (-0.25, 0.35)), (PET, "gray_r", (-1.0, 6.0))]
    others = [(name, "gray", (-2.0, 4.0)) for name in volumes_of(picture.batch.inputs) if name not in (CT, PET)]
    rows = [row for row in [*shown, *others] if row[0] in picture.batch.inputs]
    center = _center_of(picture.truth if bool(picture.truth.any()) else picture.prediction)
    figure, axes = plt.subplots(len(rows), 3, figsize=(7.2, 2.5 * len(rows)), squeeze=False, layout="constrained")
    for row, (modality, colors, limits) in zip(axes, rows, strict=True):
        volume = picture.batch.inputs[modality][0, 0].numpy()
        for axis, plane in enumerate(row):
            plane.imshow(
                np.take(volume, center[axis], axis), cmap=colors, vmin=limits[0], vmax=limits[1], origin="lower"
            )
            for number, _ in enumerate(structures, start=1):
                color = COLORS[(number - 1) % len(COLORS)]
                _contour(plane, np.take(picture.truth.numpy() == number, center[axis], axis), color, "dashed")
                _contour(plane, np.take(picture.prediction.numpy() == number, center[axis], axis), color, "solid")
            plane.set_axis_off()
        row[0].set_title(modality, loc="left", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _contour(axes, mask: np.ndarray, color: str, style: str) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=color, linestyles=style, linewidths=1.1)


def _center_of(labels: torch.Tensor) -> list[int]:
    """Per axis, the slice with the largest labeled area; the middle where there is none."""
    if not bool(labels.any()):
        return [n // 2 for n in labels.shape]
    others = [(1, 2), (0, 2), (0, 1)]
    return [int((labels > 0).sum(dim=dims).argmax()) for dims in others]
