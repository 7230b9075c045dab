"""Masked modelling: a task without labels, MedCoSS' pretext (Ye et al., CVPR 2024; He et al., CVPR 2022).

Scores are means over cases of a mean over what was hidden of each: of an image the share of a patch's variance that is
restored (0: no more than its mean, or less; 1: all), of a report the share of hidden words that are guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from common.config.task import MaskedTask
from common.data.batch import Batch
from common.data.sources import named_sources
from common.metrics import mean_defined
from common.protocol.messages import Sums
from common.tasks.base import Observation, Scored, Shapes, to_numpy
from common.tasks.bounds import CASES, AtMost
from common.tasks.cells import Mean

LOSS_SUM, RESTORED_SUM, SHOWN = "loss_sum", "restored_sum", "shown_cases"


class Masked(Scored):
    """Outputs (B, S, 3) by source: a case's loss, how much of it is restored, and 1 where it has the source."""

    kind = "masked"
    primary = "restored"
    bounds = (AtMost((RESTORED_SUM,), SHOWN), AtMost((SHOWN,), CASES))
    signed = frozenset()
    cells = (Mean(SHOWN, (LOSS_SUM, RESTORED_SUM)),)

    def __init__(self, spec: MaskedTask):
        self.sources = named_sources(spec.sources)
        self.outputs = len(self.sources)

    @property
    def sum_shapes(self) -> Shapes:
        return {name: (len(self.sources),) for name in (LOSS_SUM, RESTORED_SUM, SHOWN)} | {"cases": ()}

    def head(self, dim: int) -> nn.Module | None:
        return None  # `common.adapters.masked_decoder`

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean over the sources that a case of the batch has, of the mean over its cases."""
        losses, shown = output[:, :, 0].sum(dim=0), output[:, :, 2].sum(dim=0)
        each = losses / shown.clamp(min=1)
        return each.sum() / (shown > 0).sum().clamp(min=1)

    def observe(self, output: Tensor, batch: Batch) -> list[Observation]:
        """``loss``, ``restored`` and ``shown`` of each source, (S,)."""
        return [
            {name: to_numpy(row[:, place]) for place, name in enumerate(("loss", "restored", "shown"))}
            for row in output
        ]

    def sums(self, observations: Sequence[Observation]) -> Sums:
        """By source; of a case without it nothing."""
        zero = np.zeros(len(self.sources))
        total = {
            sum_name: zero + sum((o[name] for o in observations), start=zero)
            for sum_name, name in ((LOSS_SUM, "loss"), (RESTORED_SUM, "restored"), (SHOWN, "shown"))
        }
        return total | {"cases": np.array(float(len(observations)))}

    def metrics(self, sums: Sums) -> dict[str, float | None]:
        """``restored``, the mean over sources, and each source's own where there are several."""
        each = {
            source.name: float(restored / shown) if shown > 0 else None
            for source, restored, shown in zip(self.sources, sums[RESTORED_SUM], sums[SHOWN], strict=True)
        }
        found: dict[str, float | None] = {"restored": mean_defined(list(each.values()))}
        return found | ({f"restored_{name}": value for name, value in each.items()} if len(each) > 1 else {})
