"""Harmonized features of an exact fit: each center is asked, and scored, with a standardisation of its own.

What ComBat makes of a center's feature is a line, and standardising is one, too: together they are one mean and one
scale for each column, in the place of those that all centers share. The centers do nothing that they would not do
otherwise, and tell nothing more: their corrections follow from the moments of question 0. They stand in the run's
ledger, and each center gets its own alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from common.config.declared import harmonizes
from common.exact.columns import Layout, Scaling
from common.exact.combat import COMBAT, Affine, harmonized
from common.exact.step import exact_part
from common.protocol.messages import Order, Sums
from common.store.ledger import Ledger
from server.learning.exact.questions import Asking

EVENT = "harmonized"


def corrections(asking: Asking, layout: Layout, centers: Sequence[str], moments: Sequence[Sums]) -> dict[str, Affine]:
    """Each center's correction, written into the ledger; none for a step that asks for none."""
    step = asking.order.step
    if not harmonizes(step):
        return {}
    features = np.array(["." in name for name in layout.values])
    found = harmonized(dict(zip(centers, moments, strict=True)), features)
    told = {code: {"factor": one.factor.tolist(), "shift": one.shift.tolist()} for code, one in found.items()}
    asking.ledger.append("harmonized", {"step": step.name, "method": COMBAT, "centers": told})
    asking.narrator.say(f"          {int(features.sum())} features harmonized by {COMBAT} over {len(found)} centers")
    return found


def own_scalings(found: Mapping[str, Affine], scaling: Scaling) -> dict[str, Scaling]:
    """What each center standardises its raw columns by, so that they are harmonized ones standardised alike."""
    return {
        code: Scaling((scaling.mean - one.shift) / one.factor, scaling.scale / one.factor)
        for code, one in found.items()
    }


def corrected(ledger: Ledger, order: Order, center: str) -> Order:
    """The order as a center gets it to score: its own mean and scale. A center that had no part in the fit has none."""
    if not harmonizes(order.step) or not order.state:
        return order
    told = [event["centers"] for event in ledger.events(EVENT, step=order.step.name)][-1:]
    if not told or center not in told[0]:
        return order
    part, one = exact_part(order.step)[0], {name: np.array(v) for name, v in told[0][center].items()}
    mean, scale = (order.state[f"{part}/{name}"].numpy() for name in ("mean", "scale"))
    own = own_scalings({center: Affine(one["factor"], one["shift"])}, Scaling(mean, scale))[center]
    state = {f"{part}/mean": torch.tensor(own.mean), f"{part}/scale": torch.tensor(own.scale)}
    return replace(order, state={**order.state, **state})
