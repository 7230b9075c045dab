"""Structures by name: what a label's values mean, and which structures cannot be told apart in one map."""

from __future__ import annotations

import pytest

from client.data.case import Case, check_within, label_values, named_values
from common.errors import DataError

REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "edge": (3,), "shell": (1, 2)}


def case(structures=None, ignore=None) -> Case:
    return Case("p", "c", {}, None, {}, None, None, None, None, structures=structures, ignore=ignore)


def test_hecktor_labels_are_known_by_name_and_others_by_place():
    assert label_values(case()) == [(1,), (2,)]
    assert label_values(case(), ["GTVn"]) == [(2,)]
    assert label_values(case(), ["GTV"]) == [(1,)]
    assert named_values(case()) == {0, 1, 2}


def test_a_layout_names_its_structures_and_no_others():
    assert label_values(case(REGIONS), ["edge", "whole"]) == [(3,), (1, 2, 3)]
    with pytest.raises(
        DataError, match="asks for the structures GTVp, which the layout does not name; it names whole,"
    ):
        label_values(case(REGIONS), ["whole", "GTVp"])
    assert named_values(case(REGIONS, ignore=9)) == {0, 1, 2, 3, 9}


def test_structures_that_overlap_without_nesting_are_refused():
    with pytest.raises(DataError, match="'core' and 'shell' share label values and neither lies within the other"):
        label_values(case(REGIONS), ["core", "shell"])


def test_a_step_that_nests_structures_otherwise_than_the_layout_is_refused():
    check_within(case(REGIONS), ["whole", "core"], {"whole": ["core"]})
    with pytest.raises(DataError, match=r"set task\.within to \{whole: \[core\]\}"):
        check_within(case(REGIONS), ["whole", "core"], {})
