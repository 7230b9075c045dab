"""A coordinator's process that ends where a test says, for tests of what the same command then makes of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from server.learning import rounds


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_in(step: str, *, round: int) -> Iterator[None]:
    """Within, a run ends in this round of a step: centers have trained and written their vaults, the server nothing."""
    write = rounds.write_memory

    def die(strategy, folder, number):
        if (strategy.order.step.name, number) == (step, round):
            raise Killed
        return write(strategy, folder, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "write_memory", die)
        with pytest.raises(Killed):
            yield
