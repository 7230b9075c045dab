"""Pages of what leaves and of the policy name whatever the code declares."""

from dataclasses import fields

import pytest

from client.commands import COMMANDS
from client.policy import Policy
from common.config.adapter import PARTS
from common.config.federation import FEDERATIONS
from common.protocol.wire import COUNTS_OF, FIT_SUMS, STATUS_COUNTS
from common.tasks import build_task
from simulations.reference.leaving import ACTIONS, leaving_page
from simulations.reference.messages import CODES, EXAMPLES
from simulations.reference.policy import FIELDS, policy_page


@pytest.fixture(scope="module")
def page() -> str:
    return leaving_page()


def test_every_array_sum_count_and_code_is_named(page):
    tasks = [build_task(spec) for spec in EXAMPLES.values()]
    sums = {name for task in tasks for name in (*task.sum_shapes, *task.curve_shapes, *task.label_shapes)}
    named = {*sums, *FIT_SUMS, *STATUS_COUNTS, *CODES, *PARTS.shipped, *FEDERATIONS.shipped}
    assert sorted(name for name in named if name not in page) == []
    assert all(f"`{name}" in page for name in sums | set(CODES))


@pytest.mark.parametrize("action", sorted(COUNTS_OF))
def test_every_action_has_a_row_with_its_counts(page, action):
    [row] = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| {action} |")]
    assert row[3] == (", ".join(f"`{name}`" for name in sorted(COUNTS_OF[action])) or "none")
    assert {name.partition(" ")[0] for name in ACTIONS} == set(COUNTS_OF) and "`seconds`" in page


def test_every_row_says_what_guards_it(page):
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 60 and not [row for row in rows if row.rstrip(" |") != row[:-2] or row.endswith("|  |")]


def test_what_commands_of_a_hospital_write_is_said_and_whether_it_may_be_sent(page):
    section = page.partition("## Files that no order asks for")[2].partition("## Counts")[0]
    named = {name for name in COMMANDS if f"`{name}`" in section}
    writes_nothing = {"afresh", "erase", "health", "init", "split", "start", "tidy"}
    assert named == set(COMMANDS) - writes_nothing, "a new command that writes what could be sent is said here"
    [predict] = [line for line in section.splitlines() if "`predict`" in line]
    assert "--dicom" in predict and "never for the coordinator" in predict and "--metrics" in section


def test_the_policy_page_has_a_row_for_each_field():
    assert set(FIELDS) == {field.name for field in fields(Policy)}
    assert {code for code, _ in FIELDS.values() if code} <= set(CODES)
    text = policy_page()
    assert all(f"| `{name}` |" in text for name in FIELDS) and "cannot" in text
