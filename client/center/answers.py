"""Answers of a center with sums that no loop makes: when events happened, and what methods keep at a step's end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from client.center.patients import prepared
from client.data.dataset import targets_of
from client.policy import check_cases
from client.policy.start import check_start
from client.privacy.sums import event_times_of, question_of_keepsakes, question_of_labels
from client.training.keepsakes import Kept, kept_sums
from client.vault.standing import Standing
from common.errors import PolicyRefusal
from common.protocol.messages import TOO_FEW_CASES, Order, Reply
from common.tasks.cuts import HISTOGRAM

if TYPE_CHECKING:
    from client.center.center import Center


def event_histogram(center: Center, order: Order) -> Reply:
    """When events happened among the training cases, in coarse bins up to the task's horizon."""
    picked = center.asked_of(order, question_of_labels(order), center.part(order, "train"))
    target = targets_of(picked.cases, order.step)
    if not target:
        raise PolicyRefusal(TOO_FEW_CASES, "There is no training case to tell event times of.")
    sums = event_times_of(order, target, minimum=center.minimum(order).cell)
    reply = Reply(center.code, sums=sums)
    return center.let_out(order, reply, what="grid", cells=(HISTOGRAM,), over=len(picked.cases))


def keepsakes(center: Center, order: Order) -> Reply:
    """What the step's methods sum at its end, over the cases that it was trained on, of the state that it keeps."""
    started = time.perf_counter()
    Standing(center.vault, order).check()
    check_start(center.config.policy, order, center.shelf(order))
    model, task = center.ready_model(order)
    model.train_in_round(None)
    trained_on, methods = center.trained_on(order)
    everyone = prepared(trained_on, order, center.config, tokenizer=model.backbone.tokenizer)
    cases, waiting = center.answerable(order, question_of_keepsakes(order), everyone)
    check_cases(center.config.policy, len(cases))
    sums = kept_sums(Kept(order, center.code, model, task, cases, center.minimum(order).cell), methods)
    counts = {"cases": len(cases), "skipped": cases.skipped, **({"waiting": waiting} if waiting else {})}
    reply = Reply(center.code, sums=sums, counts=counts, seconds=time.perf_counter() - started)
    return center.let_out(order, reply, what="keepsakes")
