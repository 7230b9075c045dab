"""The core of a round, without messages: enough updates become one state, and a step's rounds one after another.

`AdapterStrategy` aggregates here what came over the network; `learn` is the loop for updates that are made in this very
process (cached features, tables of survival models). Quorum, rule and choice of the round are the same for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from common.errors import TooFewUpdates
from common.protocol.messages import State
from server.aggregation import aggregate
from server.aggregation.types import Aggregated, Setting, Update
from server.learning.selection import Score, best


def quorum(share: float, centers: int) -> int:
    """Updates that a round needs: a share of the step's centers, suspended or gone ones too; at least one."""
    return max(1, math.ceil(share * centers - 1e-9))  # a share is reached, never rounded down to


def aggregated(
    updates: Sequence[Update], start: State, memory: State, setting: Setting, *, needed: int = 1
) -> Aggregated:
    """A round's updates as one state. Raises TooFewUpdates: the round is void, the model stays as it was."""
    if len(updates) < needed:
        raise TooFewUpdates(f"{len(updates)} of {needed} needed updates can be used.")
    return aggregate(updates, start, memory, setting)


@dataclass
class Course:
    """A step's rounds: the start, then the state after each round, and what each of them is worth."""

    states: list[State] = field(default_factory=list)
    scores: list[Score | None] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The round that the validation rule keeps; 0 is the start."""
        return best(self.scores)


def learn(
    start: State,
    rounds: int,
    *,
    train: Callable[[int, State], Sequence[Update]],
    setting: Callable[[int], Setting],
    score: Callable[[int, State], Score | None] = lambda number, state: None,
    needed: int = 1,
) -> Course:
    """Rounds in this process, from a start.

    Args:
        train: the centers' updates of a round (from 1), from the state that it begins with.
        setting: what the aggregation rule must know in that round.
        score: what a state is worth; the start is round 0.
        needed: updates without which a round is void.
    """
    course, memory = Course([start], [score(0, start)]), State()
    for number in range(1, rounds + 1):
        before = course.states[-1]
        try:
            done = aggregated(train(number, before), before, memory, setting(number), needed=needed)
        except TooFewUpdates:
            course.states.append(before)
            course.scores.append(None)
            continue
        memory = done.memory
        course.states.append(done.state)
        course.scores.append(score(number, done.state))
    return course
