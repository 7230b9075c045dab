"""Whose loss rose where the total did: the liar, and nobody whose own loss only rounding moved."""

import numpy as np

from common.exact.objectives import GRADIENT, HESSIAN, LOSS
from common.exact.search import advance, begin
from server.learning.exact.rises import Rises


def answer(beta, center, lift=0.0):
    away = beta - center
    return {
        LOSS: (away**2).sum(axis=1) / 2 + lift,
        GRADIENT: away,
        HESSIAN: np.tile(np.eye(beta.shape[1]), (len(beta), 1, 1)),
    }


def followed(lift):
    """Rises of a search over three centers, of which the last one's loss is lifted everywhere but at the start."""
    search, rises = begin((2, 3)), Rises(["A", "B", "C"], problems=2)
    while not search.is_over:
        own = [
            answer(search.asked, center, lift if center == 3 and search.asked.any() else 0.0) for center in (1, 2, 3)
        ]
        before, total = search, {name: sum(part[name] for part in own) for name in own[0]}
        search = advance(search, total, penalty=np.zeros(3))
        rises.note(before, search, [part[LOSS] for part in own])
    return search, rises.centers


def test_the_one_whose_loss_rose_is_named():
    search, centers = followed(1e3)
    assert search.failed.all() and centers == ["C"]


def test_of_an_honest_search_nobody_is():
    search, centers = followed(0.0)
    assert search.done and centers == []
