"""Trivial rules: a segmentation that nobody trained, by the PET's own values, as rows that every model must beat.

All of them are shown; none was chosen, and none is tuned. They say one structure, so they stand beside steps that have
one and that look at a PET.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from client.center.center import Center
from client.training.batches import Cases
from client.training.observation import compared, is_scored_where_drawn
from common.config.options import PET_SUV
from common.config.run import Run
from common.config.step import Step
from common.data.batch import CT, PET, Batch
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, State
from common.tasks import Observation, build_task
from common.tasks.segmentation import Segmentation
from simulations.comparison.baselines import baseline_order
from simulations.comparison.patients import Observed

SOFT_HU = (-100.0, 200.0)


@dataclass(frozen=True)
class Seen:
    """What a rule looks at: SUV and, where the step has a CT, HU within its window, each (D, H, W)."""

    suv: Tensor
    hu: Tensor | None = None


Rule = Callable[[Seen], Tensor]  # -> bool (D, H, W)


def above(seen: Seen, *, threshold: float) -> Tensor:
    """Voxels of more than so much SUV."""
    return seen.suv > threshold


def above_share(seen: Seen, *, share: float) -> Tensor:
    """Voxels above a share of the crop's largest SUV (PERCIST-like contours take 41 % of a lesion's)."""
    return seen.suv > share * seen.suv.max()


def in_ellipsoid(seen: Seen, *, threshold: float) -> Tensor:
    """Soft tissue above so much SUV in the ellipsoid that the crop just holds: a crop is laid around its target."""
    axes = [(2 * torch.arange(side) + 1 - side) / side for side in seen.suv.shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    inside = (z**2 + y**2 + x**2 <= 1).to(seen.suv.device) & (seen.suv > threshold)
    return inside if seen.hu is None else inside & (seen.hu >= SOFT_HU[0]) & (seen.hu <= SOFT_HU[1])


RULES: dict[str, Rule] = {  # arm -> rule
    "SUV above 1.5": partial(above, threshold=1.5),
    "SUV above 2": partial(above, threshold=2.0),
    "SUV above 2.5": partial(above, threshold=2.5),
    "SUV above 4": partial(above, threshold=4.0),
    "SUV above 41 % of the largest": partial(above_share, share=0.41),
    "ellipsoid of soft tissue, SUV above 1": partial(in_ellipsoid, threshold=1.0),
}


def has_rules(step: Step) -> bool:
    """Whether the rules can say the step's structures: one, seen in a PET."""
    return step.task.kind == "segmentation" and PET in step.modalities and len(step.task.structures) == 1


def observe_rule(
    run: Run, step: Step, rule: Rule, *, evaluated: Sequence[Center], base: str, start: State
) -> list[Observed]:
    """Every test patient of a segmentation step under a rule, on the grid where its other arms are scored.

    Args:
        start: any state of the step: the rule looks at none, the step's cases are prepared for its model.
    """
    seen = replace(step, modes=[], view=replace(step.view, pet="suv"))
    order = replace(baseline_order(run, seen, base=base, state=start), subset="test")
    found: list[Observed] = []
    for center in sorted(evaluated, key=lambda center: center.code):
        model: AdaptedModel = center.model(order)[0]
        cases = center.case_set(order, "test", model)
        shown = cases.having(PET)
        records = [_record(order, rule, cases, place) for place in shown]
        members = [cases.cases[place] for place in shown]
        found += [Observed(center.code, case.patient, one) for case, one in zip(members, records, strict=True)]
    return found


def _seen(order: Order, batch: Batch) -> Seen:
    """A case's SUV and HU again, from what the view scaled them to."""
    suv, (low, high) = batch.inputs[PET][0, 0] * PET_SUV[1], order.step.view.ct_hu
    if CT not in batch.inputs or not bool(batch.present[CT][0]):
        return Seen(suv)
    return Seen(suv, (batch.inputs[CT][0, 0] + 1) / 2 * (high - low) + low)


def _record(order: Order, rule: Rule, cases: Cases, position: int) -> Observation:
    task, batch = build_task(order.step.task), cases.collate([position])
    assert isinstance(task, Segmentation)
    inside = rule(_seen(order, batch))
    sure = F.one_hot(inside.long(), 2).movedim(-1, 0).float()  # (2, D, H, W)
    place = cases.own_grid(position) if is_scored_where_drawn(order) else None
    if place is not None:
        return compared(task, sure, place, mask=batch.target["mask"][0])
    return task.observe(torch.log(sure[None].clamp(1e-6, 1.0)), batch)[0]
