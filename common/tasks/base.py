"""Task: the protocol of every task, and how scores of cases become scores of centers.

``observe`` turns a batch into one small record per case; these stay on site (a simulation may pool them).
``sums`` adds records up; only sums leave a center, and they merge by addition. ``metrics`` divides once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.protocol.messages import Sums
from common.tasks.bounds import AtMost
from common.tasks.cells import Cells

if TYPE_CHECKING:
    from torch import Tensor, nn

    from common.data.batch import Batch

Observation = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


class Task(Protocol):
    """What a batch means.

    Attributes:
        kind: the spec's kind.
        outputs: channels (segmentation, background included) or columns of the model's output.
        primary: name of the metric that selects rounds and fills the score matrix.
        sum_shapes: name -> shape of every sum of `sums`; () is a single number. What is not declared may not leave.
        curve_shapes: the same for `curve_sums`; empty where the task draws no curves.
        label_shapes: the same for `label_sums`; empty where the task learns nothing from counting labels.
        bounds: inequalities that hold for its sums of any patients, see `common.tasks.bounds`.
        signed: names of sums that may be negative.
        cells: which sums count patients by cell, see `common.tasks.cells`: a center tells none of a few.
        by_time: names of `sums` that count patients by time: a center makes them of `together`'s records.
        by_subgroup: metric -> the sums from which it is made, of metrics that are also told by subgroup of patients.
        zero_shot: whether the frozen model answers by itself, without a trained head.
    """

    kind: str
    outputs: int
    primary: str
    zero_shot: bool

    @property
    def sum_shapes(self) -> Shapes: ...

    @property
    def curve_shapes(self) -> Shapes: ...

    @property
    def label_shapes(self) -> Shapes: ...

    @property
    def bounds(self) -> Sequence[AtMost]: ...

    @property
    def signed(self) -> frozenset[str]: ...

    @property
    def cells(self) -> Sequence[Cells]: ...

    @property
    def by_time(self) -> frozenset[str]: ...

    @property
    def by_subgroup(self) -> Mapping[str, tuple[str, ...]]: ...

    def head(self, dim: int) -> nn.Module | None:
        """The last layer on an embedding of ``dim``; None where the output is made elsewhere."""

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch; zero with a gradient where nothing can be learned from it, never NaN."""

    def likelihood_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The part of the loss that is -log p(label | case), of a batch of one: what a Fisher matrix is of. A loss that
        only compares cases (Cox) has none, and methods that ask for one refuse it."""

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """One record per case, of what scoring needs."""

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """Sums over cases of one center; also of none."""

    def curve_sums(self, observations: Sequence[Observation], threshold: float) -> Sums:
        """Further sums for curves and calibration, asked for once a step is learned; empty where there are none.

        Args:
            threshold: of the predicted risk, between the low- and the high-risk group; others do not look at it.
        """

    def label_sums(self, target: Mapping[str, Tensor]) -> Sums:
        """Counts of the training cases' targets, before any model is asked: class counts, censoring."""

    def together(
        self, observations: Sequence[Observation], *, threshold: float, minimum: int
    ) -> Sequence[Observation] | None:
        """The same records with what few share made common, for sums that would tell of them one by one: times of
        events and of censoring, and what puts a patient in a group. None where that cannot be; the records themselves
        at a minimum of 1."""

    def together_labels(self, target: Mapping[str, Tensor], *, minimum: int) -> Mapping[str, Tensor] | None:
        """The same for the training cases' targets."""

    def calibrate(self, sums: Sums) -> Sums:
        """What merged sums over the validation cases say about a learned model: a threshold, a temperature."""

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """Metrics of merged sums; None where they do not define a value."""

    def intervals(self, sums: Sums) -> dict[str, tuple[float, float] | None]:
        """95 % intervals, from the same sums, of those metrics that have one."""


class Scored:
    """Where a task of one's own begins: a trained head, and nothing beside its scores."""

    zero_shot = False
    outputs = 1
    curve_shapes: Shapes = {}  # noqa: RUF012
    label_shapes: Shapes = {}  # noqa: RUF012
    bounds: Sequence[AtMost] = ()
    signed: frozenset[str] = frozenset({"fit.loss"})
    cells: Sequence[Cells] = ()
    by_time: frozenset[str] = frozenset()
    by_subgroup: Mapping[str, tuple[str, ...]] = {}

    def head(self, dim: int) -> nn.Module | None:
        """A linear layer to the outputs."""
        from torch import nn

        return nn.Linear(dim, self.outputs)

    def likelihood_loss(self: Task, output: Tensor, batch: Batch) -> Tensor:
        """The loss itself."""
        return self.loss(output, batch)

    def curve_sums(self, observations: Sequence[Observation], threshold: float) -> Sums:
        return {}

    def label_sums(self, target: Mapping[str, Tensor]) -> Sums:
        return {}

    def together(
        self, observations: Sequence[Observation], *, threshold: float, minimum: int
    ) -> Sequence[Observation] | None:
        return observations

    def together_labels(self, target: Mapping[str, Tensor], *, minimum: int) -> Mapping[str, Tensor] | None:
        return target

    def calibrate(self, sums: Sums) -> Sums:
        return {}

    def intervals(self, sums: Sums) -> dict[str, tuple[float, float] | None]:
        return {}


def subgroup_scores(task: Task, sums: Sums) -> dict[str, tuple[float | None, tuple[float, float] | None]]:
    """Metrics of a subgroup's merged sums, each with its 95 % interval where it has one."""
    nothing = {name: np.zeros(shape) for name, shape in task.sum_shapes.items()}
    metrics, intervals = task.metrics(nothing | sums), task.intervals(nothing | sums)
    return {name: (metrics.get(name), intervals.get(name)) for name in task.by_subgroup}


def merge_sums(parts: Iterable[Sums]) -> Sums:
    """Add sums name by name; a name that only some have is added over those."""
    total: Sums = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total[name] + value if name in total else np.array(value, np.float64)
    return total


def pooled_metrics(
    task: Task, observations: Sequence[Observation], centers: Sequence[object] | None = None
) -> dict[str, float | None]:
    """Metrics of records, in a simulation.

    Args:
        centers: one label per record; pairs of cases are then formed within centers only, as a federation does.
    """
    labels = centers if centers is not None else [""] * len(observations)
    groups: dict[object, list[Observation]] = {}
    for label, observation in zip(labels, observations, strict=True):
        groups.setdefault(label, []).append(observation)
    return task.metrics(merge_sums([task.sums([]), *(task.sums(group) for group in groups.values())]))


def column(observations: Sequence[Observation], name: str, *, width: int | None = None) -> np.ndarray:
    """One entry of every record: (n,), or (n, width), also for no records."""
    shape = (0,) if width is None else (0, width)
    return np.array([o[name] for o in observations], np.float64) if observations else np.zeros(shape)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Float64 on the CPU."""
    return tensor.detach().cpu().double().numpy()
