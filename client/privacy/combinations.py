"""Combinations: whether sums over sets of patients, added and subtracted with any weights, are a sum over a few.

Two answers over sets that differ by one patient say what that patient adds; so do three of which none differs from
another by so little. What can be told of a few is a linear combination of the sets' indicators that is zero for all
but a few patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

EXACT = 1e-9
MOST_LOOKED_AT = 50_000  # candidates; beyond it the answer is yes


def tells_of_few(sets: Sequence[frozenset], minimum: int) -> bool:
    """Whether some combination of sums over these sets is a sum over 1 to minimum - 1 patients.

    Patients who are in the same sets are an atom. The combinations are a linear space of numbers on atoms; one of them
    lives on some atoms alone where the projection onto the space, cut to those atoms, keeps a vector as it is. Its
    trace there is then 1 or more, so that few candidates are left to look at.
    """
    distinct = sorted(set(sets) - {frozenset()}, key=sorted)
    atoms = Counter(tuple(member in one for one in distinct) for member in frozenset().union(*distinct))
    if not atoms:
        return False
    sizes = np.array(list(atoms.values()))
    matrix = np.array(list(atoms), np.float64).T * np.sqrt(sizes)  # (sets, atoms)
    _, scale, rows = np.linalg.svd(matrix, full_matrices=False)
    basis = rows[scale > EXACT * scale[0]]
    shares = (basis**2).sum(axis=0)
    order = [int(place) for place in np.argsort(-shares, kind="stable") if sizes[place] < minimum]
    for looked_at, candidate in enumerate(_candidates(shares[order], sizes[order], minimum)):
        own = basis[:, [order[place] for place in candidate]]
        if looked_at >= MOST_LOOKED_AT or np.linalg.eigvalsh(own.T @ own)[-1] > 1 - EXACT:
            return True
    return False


def _candidates(shares: np.ndarray, sizes: np.ndarray, minimum: int) -> Iterator[list[int]]:
    """Places of atoms of together fewer patients than the minimum whose shares of the projection add up to 1.

    Args:
        shares: falling.
    """
    waiting: list[tuple[list[int], int, float]] = [([], 0, 0.0)]
    while waiting:
        chosen, count, share = waiting.pop()
        for place in range(chosen[-1] + 1 if chosen else 0, len(shares)):
            if share + shares[place] * (minimum - 1 - count) < 1 - EXACT:
                break  # nor can any that come later
            if count + sizes[place] < minimum:
                longer = ([*chosen, place], count + int(sizes[place]), share + float(shares[place]))
                if longer[2] >= 1 - EXACT:
                    yield longer[0]
                waiting.append(longer)
