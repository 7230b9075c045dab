"""Turns on kept cases of earlier stages: how many there are between a round's batches, and who is in each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from client.training.batches import Cases, Item, Turn
from common.data.batch import Batch


def between(
    stream: Iterable[Item | Turn], turns: Iterator[Turn], *, share: float, at_least: int = 0
) -> Iterator[Item | Turn]:
    """The batches with turns between them.

    Args:
        turns: without an end.
        share: of all of them, the turns; below 1.
        at_least: turns, where a small site's few batches owe fewer: the missing ones come last.
    """
    owed, taken = 0.0, 0
    for item in stream:
        yield item
        owed += share / (1 - share)
        while owed >= 1:
            yield next(turns)
            owed, taken = owed - 1, taken + 1
    for _ in range(taken, at_least):
        yield next(turns)


def some_of(cases: Cases, places: list[int], number: int, *, generator: torch.Generator) -> Batch:
    """A batch of so many of the cases at these places, drawn with replacement."""
    drawn = torch.randint(len(places), (number,), generator=generator).tolist()
    return cases.collate([places[place] for place in drawn])


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode for a moment, gradients as they are."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
