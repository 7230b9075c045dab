"""Rises: where a search's total loss rose, whose own loss did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.exact.search import ROUNDING, Search

SHARE = 0.5  # of the largest rise of one center, from which on another one is named as well


class Rises:
    """Each center's loss at the last question beside its loss at the point that the search accepted last."""

    def __init__(self, codes: Sequence[str], *, problems: int):
        self.codes = list(codes)
        self.accepted = np.zeros((len(self.codes), problems))
        self.rise = np.zeros((len(self.codes), problems))

    def note(self, before: Search, after: Search, losses: Sequence[np.ndarray]) -> None:
        """One question's answers, in the order of the codes.

        Args:
            before, after: the search that asked, and the same after these answers.
            losses: of each center (C,).
        """
        told = np.asarray(losses, np.float64)
        is_taken = (after.step == 1) & (after.accepted == before.asked).all(axis=1)
        rise = told - self.accepted
        is_rounding = rise <= ROUNDING * (1 + np.abs(self.accepted))
        self.rise = np.where(is_taken | before.settled | is_rounding, 0.0, rise)
        self.accepted = np.where(is_taken, told, self.accepted)

    @property
    def centers(self) -> list[str]:
        """Whose loss rose at the last question, by code: the largest rise, and those at least half as large."""
        most = self.rise.max(axis=1)
        return [code for code, own in zip(self.codes, most, strict=True) if own > 0 and own >= SHARE * most.max()]
