"""Voxels of the training cases as an exact segmentation sees them: drawn ones as rows, all of them by their score."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from client.privacy.voxels import VoxelRows
from client.training.batches import Cases, item
from client.training.prediction import predict
from client.training.windows import columns_at
from common.exact.columns import Rows
from common.exact.step import voxels_of
from common.exact.thresholds import SCORE_BINS, score_histograms
from common.exact.voxels import drawn_voxels
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.seeding import generator_for
from common.tasks import build_task
from common.tasks.segmentation import IGNORED, OUTSIDE_MM3, VOXEL_MM3, is_one_of, label_map

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]  # float32 columns, and bool flags and targets, of one case's voxels
_DRAWN: WeakKeyDictionary[Cases, tuple[str, dict[int, Drawn]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Volumes:
    """mm3 of every case by structure and score: ``true`` and ``every`` (n, S, SCORE_BINS), ``missed`` (n, S)."""

    true: np.ndarray
    every: np.ndarray
    missed: np.ndarray


def voxel_rows(order: Order, model: AdaptedModel, cases: Cases) -> VoxelRows:
    """Voxels of every case, drawn by the run's seed, the step and the patient: the same ones for every question."""
    step, spec = order.step, voxels_of(order.step)
    assert spec is not None
    kept = _kept(cases, f"{order.base}|{model.encoder_key()}|{order.seed}|{step.name}|{spec}")
    for positions in cases.in_order(1):
        if positions[0] not in kept:
            kept[positions[0]] = _drawn(order, model, cases, positions)
    parts = [kept[place] for place in sorted(kept)]
    rows = Rows(*(np.concatenate(columns).astype(np.float64) for columns in zip(*parts, strict=True)))
    return VoxelRows(rows, np.repeat(sorted(kept), [len(values) for values, _, _ in parts]))


def voxel_scores(order: Order, model: AdaptedModel, cases: Cases) -> Volumes:
    """Where every voxel of every case stands by the order's state, as volumes by score."""
    members = _members(order)
    true: list[np.ndarray] = []
    every: list[np.ndarray] = []
    missed = np.zeros((len(cases), len(members)))
    for row, positions in enumerate(cases.in_order(1)):
        batch, features = item(order, cases, positions, model)
        with torch.no_grad():
            view = order.step.view
            output = predict(
                model, batch, features=features, window=view.window, overlap=view.overlap, mirrors=view.mirrors
            )[0].cpu()
        labels = label_map(batch)[0].cpu().flatten()
        known = labels != IGNORED
        inside = torch.stack([is_one_of(labels[known], places) for places in members])
        scores = (output[1:] - output[:1]).flatten(1)[:, known]
        voxel = float(batch.target[VOXEL_MM3][0]) if VOXEL_MM3 in batch.target else 1.0
        one, other = score_histograms(scores.double().numpy(), inside.numpy(), voxel)
        true, every = [*true, one], [*every, other]
        if OUTSIDE_MM3 in batch.target:
            outside = batch.target[OUTSIDE_MM3][0].cpu().double().numpy()[: len(members)]
            missed[row, : len(outside)] = outside
    shape = (len(cases), len(members), SCORE_BINS)
    return Volumes(np.reshape(true, shape), np.reshape(every, shape), missed)


def _drawn(order: Order, model: AdaptedModel, cases: Cases, positions: list[int]) -> Drawn:
    spec = voxels_of(order.step)
    assert spec is not None
    batch, _ = item(order, cases, positions, model)
    labels = label_map(batch)[0].cpu()
    generator = generator_for(order.seed, order.step.name, "voxels", cases.cases[positions[0]].patient)
    chosen = drawn_voxels(labels, count=spec.voxels, share=spec.inside, ignored=IGNORED, generator=generator)
    with torch.no_grad():
        values, flags = columns_at(model, batch, chosen, order.step.view)
    target = torch.stack([is_one_of(labels.flatten()[chosen], places) for places in _members(order)], dim=1)
    return values.cpu().numpy(), flags.cpu().numpy(), target.numpy()


def _kept(cases: Cases, key: str) -> dict[int, Drawn]:
    """The drawn voxels of prepared cases by position, for as long as these are kept: every question asks for them."""
    if _DRAWN.get(cases, ("", {}))[0] != key:
        _DRAWN[cases] = (key, {})
    return _DRAWN[cases][1]


def _members(order: Order) -> list[list[int]]:
    """Each structure's places in the label map."""
    return build_task(order.step.task).members  # type: ignore[attr-defined]
