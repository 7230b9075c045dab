"""Names of regions: a wildcard takes up sides and numbers, never a word that makes another thing of a region."""

import pytest

from client.dicom.names import GTVN, GTVP, NAMES, match_names

OTHER = ["GTV total", "GTVtot", "GTV_Total", "GTV T+N", "GTV TN", "GTVpn", "GTVp+5mm", "GTVp 5 mm",
         "GTVp minus GTVn", "GTV-T&N",
         "GTVn sum", "GTVn ALL", "GTVp margin", "GTVp old", "gtvp_ptv", "GTV thorax", "GTV Node total"]  # fmt: skip
PRIMARY = [
    "GTVp",
    "GTV-T",
    "GTV",
    "GTV 1".replace(" ", ""),
    "GTVp_left",
    "gtv p 2",
    "GTV primary larynx",
    "GTV Tumor",
    "GTVp1",
]
NODES = ["GTVn", "GTV LN 3", "GTVn_2", "GTV Node left", "GTVnodes", "GTV-N II", "GTV nodal", "gtv n re"]


@pytest.mark.parametrize("name", OTHER)
def test_a_region_that_is_something_else_is_left_out_and_the_word_is_named(name):
    found = match_names({1: name}, NAMES)
    assert found.chosen == {} and found.unused == [name] and (name in found.swallowed)


@pytest.mark.parametrize(("name", "structure"), [(n, GTVP) for n in PRIMARY] + [(n, GTVN) for n in NODES])
def test_sides_numbers_and_levels_are_taken(name, structure):
    assert match_names({1: name}, NAMES).chosen == {structure: {1: name}}


def test_a_hospital_may_name_a_sum_in_full():
    assert match_names({1: "GTV total"}, {GTVP: ["gtv total"]}).chosen == {GTVP: {1: "GTV total"}}
    assert match_names({1: "Tumor sum"}, {GTVP: ["tum*"]}).swallowed == {"Tumor sum": "sum"}
