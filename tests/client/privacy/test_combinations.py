"""Combinations of sets: the quick answer is that of looking at every set of a few patients."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.combinations import tells_of_few

SETS = st.lists(st.frozensets(st.integers(0, 8)), max_size=5)


def by_looking_at_all(sets, minimum):
    members = sorted(frozenset().union(*sets))
    matrix = np.array([[float(m in one) for m in members] for one in sets]).reshape(len(sets), len(members))
    rank = np.linalg.matrix_rank(matrix) if matrix.size else 0
    return any(
        np.linalg.matrix_rank(np.delete(matrix, left_out, axis=1)) < rank
        for count in range(1, min(minimum, len(members) + 1))
        for left_out in combinations(range(len(members)), count)
    )


@settings(max_examples=150, deadline=None)
@given(SETS, st.integers(1, 4))
def test_it_is_what_looking_at_every_few_patients_finds(sets, minimum):
    assert tells_of_few(sets, minimum) == by_looking_at_all(sets, minimum)


def test_three_answers_tell_of_one_where_no_two_do():
    everybody = frozenset(range(21))
    parts = [frozenset(range(10)), frozenset(range(10, 20))]
    assert not tells_of_few([everybody, parts[0]], 5) and not tells_of_few(parts, 5)
    assert tells_of_few([everybody, *parts], 5)
