"""Frozen features computed once, and centers that train on them: a table of hundreds of models in minutes.

A `FeatureCenter` gives what a job is prepared from: a model on a table's features, and a split's encoded cases. The
local loop, splits, seeds, aggregation and validation rule are the run's own; only messages and decoding are left out,
and a test shows that nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from client.center.center import Center
from client.center.patients import label_sums
from client.data.case import Case
from client.data.dataset import CaseSet, targets_of, usable
from client.data.images.cache import VolumeCache
from client.privacy.release import Minimum, released
from client.training.job import prepare
from client.training.loop import fit
from client.training.observation import observe
from common.adapters.compatibility import IMAGE, TEXT
from common.backbones.base import Backbone, Features
from common.config.run import Run
from common.config.step import Step, is_validated
from common.data.batch import CT, EHR, Batch
from common.files import write_tensors
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, Reply, State, Sums
from common.protocol.weights import weight_of
from common.tasks import Observation, Task, build_task
from server.aggregation.types import Setting, Update
from server.learning.core import learn, quorum
from server.learning.selection import Score
from simulations.comparison.baselines import Trained, baseline_order, selection_score

EMBEDDINGS = {CT: IMAGE, EHR: TEXT}  # modality -> what the encoder makes of it
ENCODED = 8  # cases at a time


@dataclass(frozen=True)
class FeatureTable:
    """Embeddings of every patient under one frozen backbone: source -> (n, C), and whether the source is there (n,)."""

    rows: Mapping[str, int]  # patient -> row
    pooled: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


def feature_table(
    path: Path, run: Run, step: Step, centers: Sequence[Center], *, base: str, state: State
) -> FeatureTable:
    """The table of all usable cases, from the file if it is there.

    Args:
        step: of CT and EHR, with nothing inside the encoder.
        state: any state of the step; the encoder does not look at it.
    """
    order = baseline_order(run, step, base=base, state=state)
    if not path.exists():
        write_tensors(path, _encoded(order, centers))
    stored = load_file(path)
    patients = sorted(case.patient for center in centers for case in _usable(center, step))
    rows = {patient: row for row, patient in enumerate(patients)}
    named = {source: modality for modality, source in EMBEDDINGS.items()}
    present = {m: stored[f"{s}.present"].bool() for s, m in named.items()}
    return FeatureTable(rows, {s: stored[s] for s in named}, present)


def _usable(center: Center, step: Step) -> list[Case]:
    return [case for case in center.cases if usable(case, step)]


def _encoded(order: Order, centers: Sequence[Center]) -> State:
    """Features of every case, in the order of patients."""
    found: dict[str, dict[str, Tensor]] = {}
    for center in centers:
        model, _ = center.model(order)
        cases = CaseSet(
            _usable(center, order.step),
            order.step,
            tokenizer=model.backbone.tokenizer,
            cache=VolumeCache(Path(center.config.cache)),
        )
        for positions in cases.in_order(ENCODED):
            batch = cases.collate(positions)
            with torch.no_grad():
                pooled = model.encode(batch.inputs, batch.present).pooled
            for row, position in enumerate(positions):
                one = {source: pooled[source][row] for source in EMBEDDINGS.values()}
                one |= {f"{s}.present": batch.present[m][row].to(torch.uint8) for m, s in EMBEDDINGS.items()}
                found[cases.cases[position].patient] = one
    return {name: torch.stack([found[p][name] for p in sorted(found)]) for name in next(iter(found.values()))}


def _chunks(positions: list[int], size: int) -> Iterator[list[int]]:
    return (positions[first : first + size] for first in range(0, len(positions), size))


class FeatureSet:
    """What `Center` asks of a `CaseSet`, over rows of a feature table."""

    skipped = 0

    def __init__(self, cases: Sequence[Case], step: Step, table: FeatureTable):
        self.cases = list(cases)
        self._step = step
        rows = [table.rows[case.patient] for case in cases]
        self._present = {m: table.present[m][rows] for m in step.modalities}
        self._target = targets_of(cases, step)
        self._kept = {
            i: Features([], {EMBEDDINGS[m]: table.pooled[EMBEDDINGS[m]][row : row + 1] for m in step.modalities})
            for i, row in enumerate(rows)
        }

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def modalities(self) -> set[str]:
        return {CT} & set(self._step.modalities)

    def kept_features(self, key: str) -> dict[int, Features]:
        return self._kept

    def own_grid(self, position: int) -> None:
        """Nowhere: a feature has no voxels."""

    def having(self, mode: str) -> list[int]:
        """Every position: what is encoded already has no modes."""
        return list(range(len(self)))

    def in_order(self, batch: int, *, only: Sequence[int] | None = None) -> Iterator[list[int]]:
        return _chunks(list(range(len(self))), batch)

    def shuffled(self, batch: int, *, generator: torch.Generator) -> Iterator[list[int]]:
        return _chunks(torch.randperm(len(self), generator=generator).tolist(), batch)

    def collate(self, positions: Sequence[int], *, generator: torch.Generator | None = None) -> Batch:
        """Flags and targets of the cases; the volumes are nowhere, and nobody looks at them."""
        rows = list(positions)
        size = tuple(self._step.view.window)
        blank = {CT: torch.zeros(1).expand(len(rows), 1, *size), EHR: torch.zeros(len(rows), 1, dtype=torch.int64)}
        inputs = {m: blank[m] for m in self._step.modalities}
        present = {m: flag[rows] for m, flag in self._present.items()}
        return Batch(inputs, present, {name: values[rows] for name, values in self._target.items()})


class Encoded(Backbone):
    """Stands where the encoder stood, and knows how wide its embeddings are. It encodes nothing."""

    def __init__(self, table: FeatureTable):
        super().__init__()
        self.sites, self.blocks, self.patch = {}, {}, (1, 1, 1)
        self.image_dim, self.text_dim = (table.pooled[source].shape[1] for source in ("image", "text"))
        self.device_of = torch.nn.Parameter(torch.zeros(()), requires_grad=False)


class FeatureCenter:
    """A center, or several as one, whose cases are encoded already: a place to learn at, see `baselines.Place`.

    It serves one step and split only.
    """

    def __init__(
        self,
        code: str,
        members: Sequence[Center],
        table: FeatureTable,
        *,
        of: Callable[[Case], bool] = lambda case: True,
        minimum: int = 1,
    ):
        """Args:
        members: the centers whose patients are here, each on the side that their own center put them.
        of: which patients; the others are left out on every side.
        minimum: label sums of fewer training cases than this stay with it, as at a center of that policy.
        """
        self.code, self.table = code, table
        self._members, self._of, self._minimum = members, of, minimum
        self._sets: dict[str, FeatureSet] = {}

    def model(self, order: Order) -> tuple[AdaptedModel, Task]:
        """The step's model on the table's features, with the order's state."""
        model = AdaptedModel(Encoded(self.table), order.step, seed=order.seed)
        model.load(order.state)
        return model, build_task(order.step.task, order.known)

    def part(self, order: Order, name: str) -> list[Case]:
        """The cases of one part (train, validation, test) of the order's split."""
        return [case for member in self._members for case in member.part(order, name) if self._of(case)]

    def case_set(self, order: Order, name: str, model: AdaptedModel) -> FeatureSet:
        """The same, encoded."""
        if name not in self._sets:
            self._sets[name] = FeatureSet(self.part(order, name), order.step, self.table)
        return self._sets[name]

    def label_sums(self, order: Order) -> Sums:
        """The task's counts over the training cases' labels, as they may leave a center of that policy."""
        cases, minimum = self.part(order, "train"), Minimum(cell=self._minimum)
        reply = Reply(self.code, sums=label_sums(cases, order.step, minimum=minimum.cell))
        return released(reply, minimum=minimum, cells=build_task(order.step.task).cells, over=len(cases)).sums


def federated(centers: Sequence[FeatureCenter], order: Order) -> Trained:
    """The rounds of a federation in one process: every center's local loop, the run's own aggregation rule, and the
    pooled validation value that chooses the round. No message is sent.

    Args:
        order: the first round's; centers without training cases take no part.
    """
    step = order.step
    training = [center for center in centers if center.part(order, "train")]
    model, task = training[0].model(order)

    def train(number: int, state: State) -> list[Update]:
        updates = []
        for center in training:
            model.load(state)
            cases = center.case_set(order, "train", model)
            fit(prepare(replace(order, round=number), model, task, cases, code=center.code))
            weight = weight_of(step.federation, len(cases))
            updates.append(Update(center.code, model.state(), weight))
        return updates

    def score(number: int, state: State) -> Score | None:
        model.load(state)
        return _validated(training, order, model) if is_validated(step, number) else None

    course = learn(
        order.state,
        step.rounds,
        train=train,
        setting=lambda number: Setting(step.federation, step.adapter.parts, number),
        score=score,
        needed=quorum(step.federation.quorum, len(training)),
    )
    values = [None if found is None else found.value for found in course.scores]
    return Trained(course.states[course.best], course.best, values[1:], 0, 0, values[course.best])


def _validated(centers: Sequence[FeatureCenter], order: Order, model: AdaptedModel) -> Score | None:
    found: list[tuple[Observation, float]] = []
    labels: list[str] = []
    for center in centers:
        cases = center.case_set(order, "validation", model)
        found += observe(order, model, model.task, cases)
        labels += [center.code] * len(cases)
    return selection_score(order.step, found, labels) if found else None
