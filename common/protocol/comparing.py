"""Comparing: an order that asks about two models: the second is the order's own, the first comes beside it.

Its step is ``compared``; its state and what is known of it travel under names with a mark before them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from common.errors import WireError
from common.protocol.messages import Order, State, Sums

if TYPE_CHECKING:
    from common.config.step import Step

FIRST = "compared/"  # before the names of the first model's arrays and of its known sums
PAIRED = "paired"  # the kind of sums that a policy allows or not


def comparing(order: Order, first: Step, *, state: State, known: Sums) -> Order:
    """The order of a second model that also brings the first."""
    both = {**order.known, **{FIRST + name: value for name, value in known.items()}}
    return replace(order, compared=first, extra=named_as_first(state), known=both)


def first_model(order: Order) -> Order:
    """The same order about the first model alone. Raises WireError where it brings none."""
    if order.compared is None:
        raise WireError("An order that compares two models brings one only.")
    known = {n.removeprefix(FIRST): value for n, value in order.known.items() if n.startswith(FIRST)}
    state = {n.removeprefix(FIRST): tensor for n, tensor in order.extra.items() if n.startswith(FIRST)}
    return replace(order, step=order.compared, state=state, known=known, extra={}, compared=None)


def named_as_first(state: State) -> State:
    """A state under the names by which it travels beside another."""
    return {FIRST + name: tensor for name, tensor in state.items()}
