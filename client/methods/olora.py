"""O-LoRA: new low-rank updates read other directions than those of earlier steps (Wang et al., EMNLP 2023).

A step grafts a LoRA part of its own beside the earlier ones, which rest and stay in the sum. Added to the loss is
lambda times the sum, over layers and earlier parts k, of the squared entries of A_k A^T: 0 where the rows of A are
orthogonal to those of A_k. The released code, and what copied it, sums absolute values (``form: absolute``). Orthogonal
rows bound what two updates read of an input, not what they write; the sum grows with the number of layers and with the
ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from client.methods.base import Method
from client.training.job import Job
from common.adapters.lowrank import A, matrix, pairs_of
from common.model.adapted import AdaptedModel


class OLora(Method):
    """Holds the resting factors of each layer against the one that trains there.

    Args:
        strength: lambda.
        form: ``squared`` or ``absolute``.
    """

    def __init__(self, strength: float, form: str):
        self.strength, self.form = strength, form
        self._resting: dict[str, list[Tensor]] = {}  # state name of a training A -> the A of resting parts there

    def begin(self, job: Job) -> None:
        """Find which parts rest on the layers of those that train."""
        state, parts = job.order.state, job.order.step.adapter.parts
        by_path: dict[str, dict[str, str]] = {}
        for pair in pairs_of(state, parts):
            by_path.setdefault(pair.layer.partition("/")[2], {})[pair.part] = pair.name(A)
        for names in by_path.values():
            resting = [
                state[n].to(job.model.device) for part, n in names.items() if part not in job.model.trained_parts
            ]
            self._resting |= {n: resting for part, n in names.items() if part in job.model.trained_parts and resting}

    def penalty(self, model: AdaptedModel) -> Tensor | None:
        """lambda sum_k |A_k A^T|, of what trains in this round."""
        named = model.named_trainable_parameters()
        if self.strength == 0 or not self._resting.keys() & named.keys():
            return None
        return self.strength * overlap(named, self._resting, form=self.form)


def overlap(named: Mapping[str, Tensor], resting: Mapping[str, Iterable[Tensor]], *, form: str) -> Tensor:
    """How much the rows of factors A share with those of resting ones; factors that do not train now are left out.

    Args:
        form: ``squared``: the sum of squared entries of A_k A^T; ``absolute``: of their absolute values.
    """
    products = [
        matrix(old) @ matrix(named[name]).T for name in sorted(resting) if name in named for old in resting[name]
    ]
    each = [(product.square() if form == "squared" else product.abs()).sum() for product in products]
    return torch.stack(each).sum()
