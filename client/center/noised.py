"""A center's answer to a question of an exact fit with noise on its sums."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from client.policy import check_cases
from client.privacy.dp_sgd import NOISE, by_patient, streams_of
from client.privacy.noised.calibration import plan_at
from client.privacy.noised.standing_in import ceiling_for
from client.privacy.noised.sums import noised_sums, point_of
from client.training.observation import linear_rows
from common.errors import PolicyRefusal
from common.exact.noised import noised_objective
from common.protocol.messages import TOO_FEW_CASES, Order, Reply

if TYPE_CHECKING:
    from client.center.center import Center

log = logging.getLogger("fedgraft.center")


def noised_answer(center: Center, order: Order) -> Reply:
    """The question's sums over all training cases, once they are on the privacy account. How long it took is not told.

    Raises:
        PolicyRefusal: too few cases, a question too many, or what is left of the budget is not enough.
    """
    model, _ = center.ready_model(order)
    cases, layout = center.case_set(order, "train", model), model.exact_layout
    check_cases(center.config.policy, len(cases))
    if len(cases) < center.minimum(order).cell:
        raise PolicyRefusal(TOO_FEW_CASES, f"Sums over {len(cases)} training cases are too close to the patients.")
    objective = noised_objective(order.step)
    beta = point_of(order, objective, len(layout.names))
    rows = linear_rows(order, model, cases)
    plan = plan_at(center.vault, order.step, center.code)
    (noise,) = streams_of(
        order, cases, plan.release, (NOISE,), code=center.code, vault=center.vault,
        ceiling=ceiling_for(center.config.policy, order), most=order.step.rounds,
    )  # fmt: skip
    x = np.concatenate([rows.values, rows.flags], axis=1) if layout.with_flags else rows.values
    groups = by_patient(cases)
    sums = noised_sums(objective, x, rows.target, beta, round=order.round, groups=groups, plan=plan, noise=noise)
    log.info("step=%s round=%s center=%s noised sums", order.step.name, order.round, center.code)
    return center.let_out(
        order, Reply(center.code, sums=sums, counts={"cases": plan.cohort}), what="", over=plan.cohort
    )
