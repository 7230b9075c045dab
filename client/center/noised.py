"""A center's answers with noise on their sums: to a question of an exact fit, and with scores."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from client.policy import check_cases
from client.privacy.dp_sgd import NOISE, by_patient, streams_of
from client.privacy.noised.calibration import plan_at, score_plan_at
from client.privacy.noised.scores import noised_scores
from client.privacy.noised.standing_in import ceiling_for
from client.privacy.noised.sums import noised_sums, point_of
from client.privacy.unnoised import NOISE as NO_NOISE
from client.training.observation import linear_rows, observe
from common.errors import PolicyRefusal
from common.exact.noised import noised_objective
from common.privacy.plan import SCORES
from common.privacy.scores import ratio_of
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


def noised_score_answer(center: Center, order: Order) -> Reply:
    """Scores of an order's state on one local split, once they are on the privacy account. Neither how many patients
    were scored is told, nor how long it took.

    Raises:
        PolicyRefusal: too few patients, a task whose scores no noise hides, an answer too many, or what is left of the
            budget is not enough.
    """
    ratio = ratio_of(order.step.task)
    if ratio is None:
        raise PolicyRefusal(NO_NOISE, f"No score of step '{order.step.name}' has a bound that noise could hide.")
    model, task = center.ready_model(replace(order, state=center.own_state(order)))
    cases = center.case_set(order, order.subset, model)
    shown = [cases.cases[place].patient for place in cases.having(order.mode)]
    if len(set(shown)) < center.minimum(order).cell:
        raise PolicyRefusal(TOO_FEW_CASES, f"Scores of {len(set(shown))} patients are too close to them.")
    records = [record for record, _ in observe(order, model, task, cases)]
    plan = score_plan_at(center.vault, order.step, center.code)
    (noise,) = streams_of(
        order, cases, plan.release, (NOISE,), code=center.code, vault=center.vault,
        ceiling=ceiling_for(center.config.policy, order, of=SCORES), most=plan.answers,
    )  # fmt: skip
    sums = noised_scores(ratio, records, shown, plan=plan, noise=noise)
    log.info(
        "step=%s round=%s center=%s subset=%s noised scores", order.step.name, order.round, center.code, order.subset
    )
    return center.let_out(
        order, Reply(center.code, sums=sums, counts={"cases": plan.cohort}), what="", over=plan.cohort
    )
