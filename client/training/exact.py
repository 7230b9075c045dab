"""What a center's training cases say to the questions of an exact fit, with nothing of a few patients in it."""

from __future__ import annotations

from client.data.dataset import targets_of
from client.privacy.rows import Shared
from client.privacy.sums import shared_of
from client.privacy.voxels import shared_bins, shared_voxels
from client.training.batches import Cases
from client.training.observation import linear_rows
from client.training.voxels import voxel_rows, voxel_scores
from common.exact.step import voxels_of
from common.exact.thresholds import ALL, MISSED, TRUE
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, Sums


def exact_rows(order: Order, model: AdaptedModel, cases: Cases, *, minimum: int) -> Shared:
    """The rows of the part that sums fit: one row a case, or some voxels of each."""
    if voxels_of(order.step) is None:
        rows, target = linear_rows(order, model, cases), targets_of(cases.cases, order.step)
        return shared_of(order, model.exact_layout, rows, target=target, minimum=minimum)
    return shared_voxels(model.exact_layout, voxel_rows(order, model, cases), minimum=minimum)


def score_sums(order: Order, model: AdaptedModel, cases: Cases, *, minimum: int) -> Sums:
    """How much of each structure, and of everything, lies at which score of the order's state."""
    found = voxel_scores(order, model, cases)
    return {
        TRUE: shared_bins(found.true, minimum=minimum),
        ALL: shared_bins(found.every, minimum=minimum),
        MISSED: shared_bins(found.missed[..., None], minimum=minimum)[..., 0],
    }
