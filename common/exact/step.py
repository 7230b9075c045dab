"""A step that is fitted by Newton's method: its columns, its objective, and what its sums may say, on both sides alike.

Such a step has one part, of kind ``linear``: a linear model on frozen features and records, float64. Centers answer two
kinds of questions, both with sums: moments of the columns (round 0), then loss, gradient and Hessian at the parameters
that the order names (round 1 and on). Ridge asks once, for Gram sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.config.adapter import EXACT, LinearPart, VoxelLinearPart
from common.config.objective import RIDGE, objective_name
from common.config.options import STATISTICS
from common.config.privacy import NoisedSums
from common.config.step import Step
from common.data.batch import EHR, RECORD, volumes_of
from common.data.records import MODEL_VARIABLES, record_layout
from common.errors import AdapterError
from common.exact.columns import (
    COUNT,
    SQUARE,
    SUM,
    Layout,
    LinearModel,
    Rows,
    Scaling,
    moment_shapes,
    moment_sums,
    standardise,
)
from common.exact.objectives import GRADIENT, HESSIAN, Logistic, Objective, build_objective, newton_shapes
from common.exact.ridge import CASES, GRAM, MOMENT, ridge_shapes, ridge_sums
from common.exact.thresholds import ALL, MISSED, SCORE_BINS, THRESHOLDS, TRUE
from common.protocol.keepsakes import KEEPSAKES, keepsake_shapes
from common.protocol.messages import Order, Sums
from common.tasks import build_task, withheld_fields
from common.tasks.cells import Table
from common.tasks.cuts import BINS, EVENTS, GRID
from common.tasks.prognosis import discretise
from common.tasks.unlearned.statistics import told_shapes

CELLS = (
    Table((COUNT,), axes=0, alike=(SUM, SQUARE)),
    Table((CASES,), axes=0, alike=(GRAM, MOMENT)),
)  # what is left of a center's sums where its rows did not see to it
BETA, MEAN, SCALE = "newton.beta", "newton.mean", "newton.scale"


def linear_part(step: Step) -> tuple[str, LinearPart]:
    """Name and spec of the step's linear part. Raises AdapterError where there is none."""
    for name, spec in step.adapter.parts.items():
        if spec.kind == "linear":
            return name, spec
    raise AdapterError(f"Step '{step.name}' has no linear part; give it adapter=linear.")


def exact_part(step: Step) -> tuple[str, LinearPart | VoxelLinearPart]:
    """Name and spec of the step's one part that is fitted from sums. Raises AdapterError where there is none."""
    for name, spec in step.adapter.parts.items():
        if spec.kind in EXACT:
            return name, spec
    raise AdapterError(f"Step '{step.name}' has no part that sums can fit; give it adapter=linear or exact_voxels.")


def voxels_of(step: Step) -> VoxelLinearPart | None:
    """The spec of a part whose rows are voxels; None where the rows are patients."""
    return next((spec for spec in step.adapter.parts.values() if spec.kind == "voxel_linear"), None)


def rows_per_case(step: Step) -> int:
    """Rows of the fit that one patient has at most."""
    spec = voxels_of(step)
    return 1 if spec is None else spec.voxels


def records_of(step: Step) -> Layout:
    """The columns of a record that this step may see: never its target or the target's proxies."""
    _, spec = linear_part(step)
    return record_layout(
        spec.variables or MODEL_VARIABLES, withhold=withheld_fields(step.task), with_flags=spec.known_flags
    )


def layout_of(step: Step, widths: Mapping[str, int], *, with_records: bool) -> Layout:
    """All columns: each source's features, known where the case has the source, then the record's.

    Args:
        widths: feature source (image, text) -> its width, in the model's order.
    """
    _, spec = linear_part(step)
    values = tuple(f"{source}.{i}" for source, width in widths.items() for i in range(width))
    flag_of = tuple(place for place, width in enumerate(widths.values()) for _ in range(width))
    features = Layout(values, tuple(widths), flag_of, with_flags=spec.known_flags)
    return features.concat(records_of(step)) if with_records else features


def objective_of(step: Step) -> Objective | None:
    """What is minimised; None for ridge, which needs no search. Raises ConfigError for a task that has no such form."""
    name = objective_name(step)
    if name == RIDGE:
        return None
    task: Any = step.task
    named = getattr(task, "classes", None) or getattr(task, "structures", None) or [""]
    return build_objective(name, bins=getattr(task, "bins", 1), classes=len(named))


def target_of(step: Step, target: Mapping[str, Tensor]) -> np.ndarray:
    """A batch's targets (n, T) as the objective reads them."""
    if step.task.kind == "classification":
        return target["labels"].double().numpy()
    if step.task.loss == "cox":
        return torch.stack([target["days"], target["event"]], dim=1).double().numpy()
    index, event = discretise(target["days"], target["event"], build_task(step.task).cuts)  # type: ignore[attr-defined]
    return torch.stack([index.double(), event.double()], dim=1).numpy()


# ------------------------------------------------------------------------------------------------- one round's sums


def round_sums(step: Step, layout: Layout, rows: Rows, *, round: int, known: Mapping[str, np.ndarray]) -> Sums:
    """A center's answer.

    Args:
        rows: of which no column tells of a few (`client.privacy.rows`).
        round: 0 asks for moments, later rounds for loss, gradient and Hessian; ridge asks for its Gram sums in 0.
        known: ``newton.mean`` and ``newton.scale`` (F,) and ``newton.beta`` (C, Q) of later rounds.
    """
    objective = objective_of(step)
    if objective is None:
        return ridge_sums(layout, rows)
    if round == 0:
        return moment_sums(layout, rows)
    x = standardise(layout, rows.values, rows.flags, Scaling(known[MEAN], known[SCALE]))
    return objective.sums(x, rows.target, known[BETA])


def declared_in_order(order: Order) -> dict[str, tuple[int, ...]]:
    """What a reply to an order for sums may say: statistics of patients, a histogram of event times or of scores, what
    methods keep at a step's end, or `round_sums`."""
    if order.subset == STATISTICS:
        return told_shapes()
    if order.subset == GRID:
        return {EVENTS: (BINS,)}
    if order.subset == THRESHOLDS:
        return score_shapes(order.step)
    if order.subset == KEEPSAKES:
        return keepsake_shapes(order.state, order.step)
    return declared_in_round(order.step, order.state, order.round)


def score_shapes(step: Step) -> dict[str, tuple[int, ...]]:
    """What the histograms of scores may say, one row for each structure."""
    structures = len(step.task.structures)
    return {TRUE: (structures, SCORE_BINS), ALL: (structures, SCORE_BINS), MISSED: (structures,)}


def declared_in_round(step: Step, state: Mapping[str, Tensor], round: int) -> dict[str, tuple[int, ...]]:
    """What `round_sums` may say, by the shapes of the step's state."""
    part, _ = exact_part(step)
    values, columns = len(state[f"{part}/mean"]), state[f"{part}/weight"].shape[1]
    objective = objective_of(step)
    if isinstance(step.privacy, NoisedSums):  # at zero a Hessian, too, which no later question repeats
        shapes = newton_shapes(objective or Logistic(len(step.task.classes)), columns)
        return {name: shapes[name] for name in ((GRADIENT, HESSIAN) if round == 0 else (GRADIENT,))}
    if objective is None:
        return ridge_shapes(values, _flag_count(step), len(step.task.classes))
    return moment_shapes(values) if round == 0 else newton_shapes(objective, columns)


def _flag_count(step: Step) -> int:
    """Known flags: one per feature source, one per variable of the record."""
    sources = [volumes_of(step.modalities), {EHR} & {*step.modalities}]
    return sum(map(bool, sources)) + (len(records_of(step).flags) if RECORD in step.modalities else 0)


# ---------------------------------------------------------------------------------------------------------- the part


class Linear(nn.Module):
    """(n, F) values and (n, V) flags -> (n, outputs), float64; zero until it is fitted.

    ``mean`` and ``scale`` (F,) travel with it, so that a state is a whole model.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, layout: Layout, outputs: int):
        super().__init__()
        self.layout = layout
        columns, names = len(layout.values), len(layout.names)
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(columns, dtype=torch.float64))
        self.weight = nn.Parameter(torch.zeros(outputs, names, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float64))

    def forward(self, values: Tensor, flags: Tensor) -> Tensor:
        places = torch.tensor(self.layout.flag_of, device=values.device)
        known = torch.cat(
            [flags, torch.ones_like(flags[:, :1]) if flags.shape[1] else flags.new_ones(len(values), 1)], 1
        )
        columns = (values - self.mean * known[:, places]) / self.scale
        z = torch.cat([columns, flags], dim=1) if self.layout.with_flags else columns
        return z @ self.weight.T + self.bias


def state_of(model: LinearModel, part: str) -> dict[str, Tensor]:
    """A fitted model as the state of a linear part."""
    arrays = {"mean": model.scaling.mean, "scale": model.scaling.scale, "weight": model.weight, "bias": model.bias}
    # a copy in C order: numpy's strides of axes of length 1 are arbitrary, and a state is hashed by its bytes
    copies = {name: np.array(value, np.float64, order="C") for name, value in arrays.items()}
    return {f"{part}/{name}": torch.from_numpy(value) for name, value in copies.items()}
