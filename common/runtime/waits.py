"""Waits between two looks at something: short at first, longer the longer nothing happens, so that looking costs little
and what is waited for costs a tenth of the wait at most.
"""

from __future__ import annotations

import time

SHORTEST_S, SHARE = 0.05, 0.1
FIRST_BACKOFF_S = 0.05  # before a part of a message that is still on its way is asked for again; Flower's is 1 s


class Waits:
    """Stands where a loop of Flower's has the module ``time``, or is asked by our own.

    Args:
        share: of the time since `begin` that one wait lasts.
        longest_s: no wait is longer, however long nothing happened.
    """

    def __init__(self, *, longest_s: float = 60.0, share: float = SHARE):
        self.longest_s, self.share = longest_s, share
        self.begin()

    def begin(self) -> None:
        """Something happened: the next look comes soon."""
        self._since = time.monotonic()

    def length(self) -> float:
        """Seconds until the next look."""
        return min(self.longest_s, max(SHORTEST_S, self.share * (time.monotonic() - self._since)))

    def sleep(self, seconds: float = 60.0) -> None:
        """Wait, for no longer than would have been waited without this."""
        time.sleep(min(seconds, self.length()))
