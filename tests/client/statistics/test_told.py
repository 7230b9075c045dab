"""Statistics before training: exact where nothing is to hide, and of no few anywhere else."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from client.__main__ import main
from client.commands.audit import audit
from client.data.layouts import find_cases
from client.policy import Policy
from client.privacy.record import read_record
from client.privacy.release import Minimum
from client.privacy.spending import FILE, Entry, charge, read_account
from client.statistics.measured import counted, measured
from client.statistics.told import gated, statistics_of
from client.vault.cohort import read_cohort
from common.data.quantities import QUANTITIES
from common.errors import PolicyRefusal
from common.privacy.accounting import Release
from tests.helpers.small import write_centers, write_cohort

OPEN = Minimum(1, 1)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = write_cohort(tmp_path_factory.mktemp("cohort"), {"MDA": 23})
    return find_cases(root)


def told(cases, vault, cell=5):
    return statistics_of("MDA", cases, policy=Policy(minimum_cell=cell), vault=vault, minimum=Minimum(1, cell))


def test_every_quantity_counts_each_patient_once_in_the_bin_of_its_value(cases):
    values, unreadable = measured(cases)
    assert unreadable == 0
    found = counted(values)
    assert found["CT_spacing_mm"].tolist() == [0] * 11 + [23], "6 mm, on the last edge, is of the bin above it"
    ages = np.array([case.record["age"] for case in cases])
    edges = [0, 30, 40, 50, 60, 70, 80, 200]
    assert found["age"].tolist() == [((ages >= a) & (ages < b)).sum() for a, b in pairwise(edges)]
    assert found["gender"].sum() == found["event"].sum() == 23
    assert found["event"].tolist() == [sum(c.event == 0 for c in cases), sum(c.event == 1 for c in cases)]
    nodes = sum(int(case.patient[-3:]) % 3 > 0 for case in cases)
    assert found["GTVn_ml"].sum() == nodes
    assert found["GTVn_ml"][QUANTITIES["GTVn_ml"].bins.index("2 to 5")] == nodes, "18 voxels of 216 mm3 are 3.888 ml"


def test_with_a_minimum_of_one_the_file_says_exactly_what_was_counted(cases, tmp_path):
    found = told(cases, tmp_path, cell=1)
    exact = counted(measured(cases)[0])
    assert {name: row.tolist() for name, row in exact.items()} == found["histograms"] and found["cases"] == 23


def test_no_cell_and_no_remainder_is_of_a_few(cases, tmp_path):
    found = told(cases, tmp_path)
    assert found["cases"] == 25, "23 in whole steps of 5"
    for name, row in found["histograms"].items():
        assert all(count == 0 or count >= 5 for count in row), name
        assert not 0 < 23 - sum(row) < 5, name
    exact = counted(measured(cases)[0])
    for name, quantity in QUANTITIES.items():
        if quantity.is_number and name in exact and exact[name].sum() == 23:
            assert sum(found["histograms"][name]) == 23, "who is in no cell would be a cell"


def test_a_level_of_three_patients_takes_its_table_along():
    values = [{"gender": "female"}] * 3 + [{"gender": "male"}] * 20
    assert gated("A", values, minimum=Minimum(1, 5)) == ({}, True)
    [(name, row)] = gated("A", [*values, *[{"gender": "female"}] * 2], minimum=Minimum(1, 5))[0].items()
    assert (name, row.tolist()) == ("gender", [5, 20])


def test_one_patient_more_tells_nothing_of_that_patient(cases, tmp_path):
    first = told(cases[:22], tmp_path)
    again = told(cases, tmp_path)
    assert again["histograms"] == first["histograms"], "the newcomer waits until four more have come"


def test_images_are_told_by_scanner_where_two_makes_have_enough(cases, tmp_path):
    makes = ["ge"] * 10 + ["siemens"] * 10 + ["canon"] * 3
    by_make = [replace(c, record={**c.record, "scanner": m}) for c, m in zip(cases, makes, strict=True)]
    found = told(by_make, tmp_path)["by_scanner"]
    assert "canon" not in found and set(found) <= {"ge", "siemens"}
    for rows in found.values():
        assert sum(rows["CT_spacing_mm"]) == 10 and "age" not in rows
    one = [replace(c, record={**c.record, "scanner": "ge"}) for c in cases]
    assert told(one, tmp_path / "one")["by_scanner"] == {}, "a center with one scanner is told once"


def test_too_few_patients_and_a_strict_policy_tell_nothing(cases, tmp_path):
    with pytest.raises(PolicyRefusal, match="Statistics of 4 patients") as refusal:
        told(cases[:4], tmp_path)
    assert refusal.value.code == "declined.cases"
    policy = Policy(sums=["scores"])
    with pytest.raises(PolicyRefusal, match=r"policy\.sums"):
        statistics_of("MDA", cases, policy=policy, vault=tmp_path, minimum=Minimum(1, 5))
    policy = Policy()
    policy.privacy.strict = True
    with pytest.raises(PolicyRefusal, match="statistics carry none"):
        statistics_of("MDA", cases, policy=policy, vault=tmp_path, minimum=Minimum(1, 5))
    policy = Policy(require_secure_aggregation=True)
    with pytest.raises(PolicyRefusal, match="secure sums only") as refusal:
        statistics_of("MDA", cases, policy=policy, vault=tmp_path, minimum=Minimum(1, 5))
    assert refusal.value.code == "declined.secure_aggregation"


def test_the_command_records_the_file_in_a_vault_that_later_orders_go_on_with(tmp_path, capsys):
    root = write_cohort(tmp_path / "cohort", {"MDA": 12})
    center = write_centers(tmp_path / "centers", root, ["MDA"], minimum_cell=5)["MDA"]
    assert main(["statistics", "--center", str(center), "--out", str(tmp_path / "MDA.json")]) == 0
    written = json.loads((tmp_path / "MDA.json").read_text())
    assert written["cases"] == 15 and "15 patients (in steps of 5)" in capsys.readouterr().out
    assert "MDA-0" not in (tmp_path / "MDA.json").read_text()
    vault = tmp_path / "centers" / ".vault" / "MDA"
    [event] = audit(vault)["events"]
    assert (event["action"], event["bytes"]) == ("statistics", (tmp_path / "MDA.json").stat().st_size)
    assert event["sums"] == sorted(written["histograms"])
    assert not (vault / FILE).exists(), "no account is kept"


def test_a_file_of_a_cohort_with_an_account_is_a_line_of_it(tmp_path):
    """No reply, and no epsilon covers it either."""
    root = write_cohort(tmp_path / "cohort", {"MDA": 12})
    center = write_centers(tmp_path / "centers", root, ["MDA"], minimum_cell=5)["MDA"]
    vault = tmp_path / "centers" / ".vault" / "MDA"
    vault.mkdir(parents=True)
    charge(vault, Entry("run", "private", 1, "0" * 64, (Release(noise=1.0),)))
    assert main(["statistics", "--center", str(center), "--out", str(tmp_path / "MDA.json")]) == 0
    [line] = read_account(vault).unnoised
    assert (line.what, line.step) == ("statistics", "")
    assert read_record(vault).key == read_cohort(vault).key, "erased patients are known to both by one key"
