"""A linear model fitted on noised sums of several centers in one process: the search of a federation, without messages.

The noise is the product's (`client.privacy.noised.sums`), from streams that whoever calls knows: it protects nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from client.privacy.noised.sums import noised_sums
from client.privacy.streams import Stream
from common.exact.columns import add
from common.exact.noised import noise_scales, spectral, step_from
from common.exact.objectives import GRADIENT, HESSIAN, Objective
from common.privacy.plan import Plan


def fitted(
    objective: Objective, data: Mapping[str, tuple[np.ndarray, np.ndarray]], plans: Mapping[str, Plan],
    streams: Mapping[str, Stream], *, questions: int, penalty: float,
) -> np.ndarray:  # fmt: skip
    """The parameters after so many questions.

    Args:
        data: center -> columns (n, P) and target (n, T); each row is a patient.
    """
    columns = next(iter(data.values()))[0].shape[1]
    beta, weights = np.zeros(objective.shape(columns)), penalty * objective.penalised(columns)
    floor = spectral([noise_scales(objective, plan, round=0)[HESSIAN] for plan in plans.values()], beta.shape[1])
    hessian = np.zeros(0)
    for round in range(questions):
        told = add(
            noised_sums(objective, x, target, beta, round=round, groups=[[n] for n in range(len(x))],
                        plan=plans[center], noise=streams[center])
            for center, (x, target) in data.items()
        )  # fmt: skip
        hessian = told.get(HESSIAN, hessian)
        beta = step_from(beta, {GRADIENT: told[GRADIENT], HESSIAN: hessian}, penalty=weights, floor=floor)
    return beta
