"""A center's answer about two models: both score the same test patients, and sums of their paired scores leave."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from client.center.models import backbone_of, initial_state
from client.center.patients import prepared
from client.data.case import Case
from client.data.dataset import CaseSet
from client.masking.replies import check_unmasked
from client.policy import check_order
from client.privacy.sums import question_of_scores
from client.privacy.unnoised import NOISE, check_strict
from client.training.observation import observe
from common.config.privacy import scores_are_noised
from common.errors import PolicyRefusal, WireError
from common.protocol.comparing import PAIRED, first_model, named_as_first
from common.protocol.messages import Order, Reply, State, Sums
from common.tasks import Observation, Task
from common.tasks.unlearned.paired import paired_cells, paired_scores

if TYPE_CHECKING:
    from client.center.center import Center

log = logging.getLogger("fedgraft.center")


def paired_answer(center: Center, order: Order) -> Reply:
    """Sums over the patients that both models can see, as an earlier exact answer allows; none of fewer than the
    minimum. Raises PolicyRefusal for an order that the hospital does not answer."""
    started = time.perf_counter()
    first = first_model(order)
    for asked in (order, first):
        check_order(center.config.policy, asked, asks=[PAIRED])
        check_unmasked(asked)
        if scores_are_noised(asked.step.privacy):
            raise PolicyRefusal(
                NOISE, f"Scores of step '{asked.step.name}' leave with noise only, and paired ones carry none."
            )
    check_strict(center.config.policy, PAIRED)
    cases, skipped = _shared(center, (first, order))
    picked, waiting = _picked(center, order, cases)
    counts = {"cases": len(picked), "skipped": skipped} | ({"waiting": waiting} if waiting else {})
    sums = Sums()
    if len(picked) < center.minimum(order).cell:
        counts["suppressed"] = 1
    else:
        sums = _sums(center, (first, order), picked)
    reply = Reply(center.code, sums=sums, counts=counts, seconds=time.perf_counter() - started)
    return center.let_out(order, reply, what=PAIRED if sums else "counts", cells=paired_cells(order.step.task))


def arriving_beside(center: Center, order: Order) -> State:
    """The arrays of the first model, as an order that compares two brings them beside the second's."""
    return {} if order.compared is None else named_as_first(initial_state(center.config, first_model(order)))


def _shared(center: Center, orders: Sequence[Order]) -> tuple[list[Case], int]:
    """Test patients that both steps can use and read, and how many cannot be read for one of them."""
    sets = [_prepared(center, order, center.part(order, order.subset)) for order in orders]
    seen = [{case.patient for case in one.cases} for one in sets]
    return [case for case in sets[-1].cases if case.patient in seen[0]], max(one.skipped for one in sets)


def _picked(center: Center, order: Order, cases: Sequence[Case]) -> tuple[list[Case], int]:
    """Those that may be scored, and how many wait; nobody where the difference to an earlier answer is a few."""
    try:
        picked = center.asked_of(order, question_of_scores(order), cases)
    except PolicyRefusal as refusal:
        log.warning("center=%s code=%s nothing is compared: %s", center.code, refusal.code, refusal)
        return [], 0
    return picked.cases, picked.waiting


def _sums(center: Center, orders: Sequence[Order], cases: Sequence[Case]) -> Sums:
    (first, a), (second, b) = [_scored(center, order, cases) for order in orders]
    if len(a) != len(b):
        raise WireError("Two models did not score the same patients; nothing was told.")
    return paired_scores((first, second), a, b, spec=orders[-1].step.task)


def _scored(center: Center, order: Order, cases: Sequence[Case]) -> tuple[Task, list[Observation]]:
    """An order's task and its records. Two orders may be of one resident model: each is done before the next one."""
    model, task = center.ready_model(order)
    return task, [record for record, _ in observe(order, model, task, _prepared(center, order, cases))]


def _prepared(center: Center, order: Order, cases: Sequence[Case]) -> CaseSet:
    return prepared(cases, order, center.config, tokenizer=backbone_of(center.config, order).tokenizer)
