"""One list of arms; names in results that were written before it are still understood."""

from simulations.comparison import names
from simulations.comparison.names import CENTRALIZED, EARLIER, LABELS, LOCAL, arm_of, label_of
from simulations.survival.arms import ARMS

EVERY = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}


def test_arms_are_found_by_what_files_and_people_call_them():
    assert arm_of("local only") == LOCAL and arm_of("pooled") == CENTRALIZED
    assert all(arm_of(arm) == arm for arm in EVERY)
    assert label_of(LOCAL) == "local only" and arm_of(label_of(LOCAL)) == LOCAL


def test_labels_and_earlier_names_are_of_arms_that_there_are():
    assert {*LABELS} <= EVERY and {*EARLIER.values()} <= EVERY and {*ARMS} <= EVERY
