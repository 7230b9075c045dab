"""What the answer to a question may carry, by its action: known before anybody is asked."""

from __future__ import annotations

from common.exact.step import declared_in_order
from common.privacy.scores import scored_task
from common.protocol.arrays import Form, form_of
from common.protocol.masked import QUESTION, fit_layout, masked_form, phase_form, scoring_layout
from common.protocol.messages import STAGE, Order
from common.protocol.wire import declared_scores

DESCRIBE, EVALUATE, SUMS = "query.describe", "evaluate", "query.sums"


def answer_form(order: Order, action: str) -> Form:
    """The form of the answers to a question that carry sums; those to training are `AdapterStrategy`'s to know."""
    if action == SUMS and order.masking is not None:
        return form_of({}, masked_form(fit_layout(order)), {})
    if action == SUMS:
        return form_of({}, {}, declared_in_order(order))
    if action == STAGE:
        return form_of({}, {}, {})
    if order.masking is not None:
        masked = phase_form(order.masking) if action == QUESTION else masked_form(scoring_layout(order))
        return form_of({}, masked, {})
    task = scored_task(order.step)
    shapes = task.label_shapes if action == DESCRIBE else declared_scores(order, task)
    return form_of({}, {}, shapes)
