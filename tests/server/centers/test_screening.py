"""What a reply must be before the server uses it."""

import math

import numpy as np
import pytest
import torch

from common.config.federation import Guards
from common.config.task import SegmentationTask
from common.protocol.messages import Reply
from common.tasks import build_task
from server.centers.screening import (
    SAMPLE,
    Expected,
    expected_of_task,
    fingerprint,
    inflated,
    missing_in_update,
    norm_bound,
    outliers,
    replayed,
    screen,
    weighed_cases,
)

STATE = {"decoder/a": torch.zeros(2), "decoder/b": torch.zeros(3), "stem/a": torch.zeros(1)}
SHAPES = {"fit.loss": (), "fit.cases": (), "fit.batches": (), "volumes": (2,)}
FIT = {name: np.array(1.0) for name in ("fit.loss", "fit.cases", "fit.batches")}
COUNTS = {"cases": 3, "batches": 2}


def rejected(reply):
    found = screen(reply, Expected(SHAPES, state=STATE))
    return found.code if found else None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("A", state=STATE, sums=FIT), None),
        (Reply("A", state={"stem/a": torch.zeros(1)}), None),
        (Reply("A", code="declined.task"), "declined.task"),
        (Reply("A", state={"stem/a": torch.tensor([np.nan])}), "not_finite"),
        (Reply("A", state={"stem/a": torch.tensor([-np.inf])}), "not_finite"),
        (Reply("A", sums={"volumes": np.array([1.0, np.nan])}), "not_finite"),
        (Reply("A", state={"stem/b": torch.zeros(1)}), "undeclared"),
        (Reply("A", sums={"volumes": np.zeros(3)}), "undeclared"),
    ],
)
def test_a_reply_is_used_or_has_a_reason(reply, reason):
    assert rejected(reply) == reason


@pytest.mark.parametrize(
    ("state", "sums", "counts", "reason"),
    [
        (STATE, FIT, COUNTS, None),
        ({n: t for n, t in STATE.items() if n.startswith("decoder")}, FIT, COUNTS, None),  # a center without PET
        ({"decoder/a": torch.zeros(2)}, FIT, COUNTS, "incomplete"),
        ({}, FIT, COUNTS, "incomplete"),
        (STATE, {}, COUNTS, "incomplete"),
        (STATE, FIT, {"cases": 3}, "incomplete"),
    ],
)
def test_an_update_has_whole_parts_its_fit_and_its_counts(state, sums, counts, reason):
    assert missing_in_update(Reply("A", state=state, sums=sums, counts=counts), state_like=STATE) == reason


@pytest.mark.parametrize(
    ("names", "reason"),
    [([], None), (["fit.loss", "fit.cases", "volumes"], None), (["fit.loss", "volumes"], "incomplete")],
)
def test_scores_are_whole_or_suppressed(names, reason):
    sums = {name: np.zeros(SHAPES[name]) for name in names}
    found = screen(Reply("A", sums=sums), Expected(SHAPES, needed=frozenset(SHAPES) - {"fit.batches"}))
    assert (found.code if found else None) == reason


def test_an_answer_that_must_say_something_says_it_all():
    found = screen(Reply("A"), Expected(SHAPES, needed=frozenset({"volumes"}), empty=False))
    assert (found.code, found.told) == ("incomplete", "1 sums are missing, the first volumes")


@pytest.mark.parametrize(
    ("sums", "code"),
    [
        ({"fit.cases": 3.0}, None),
        ({"fit.cases": 4.0}, "counts"),
        ({"fit.cases": -1e9}, "impossible"),
        ({"fit.loss": -1e12}, "impossible"),
        ({"fit.loss": 1.7e308}, "impossible"),
        ({"intersection": np.array([9.0]), "volumes": np.array([10.0])}, "impossible"),
        ({"dice_cases": np.array([4.0]), "fit.cases": 3.0}, "impossible"),
    ],
)
def test_sums_are_such_as_patients_could_make(sums, code):
    task = build_task(SegmentationTask(structures=["GTVp"]))
    shapes = {"fit.loss": (), "fit.cases": (), **task.sum_shapes}
    reply = Reply("A", sums={name: np.asarray(value) for name, value in sums.items()})
    found = screen(reply, expected_of_task(task, shapes, cases=3.0))
    assert (found.code if found else None) == code


# ------------------------------------------------------------------------------------------------ lengths of updates

LENGTHS = [0.8, 0.9, 1.0, 1.0, 1.1, 1.2, 1.3]  # median 1, median deviation 0.1


def bound_of(*lengths, **guards):
    return norm_bound(lengths, Guards(**{"norm_factor": 3.0, "norm_mads": 4.0, **guards}))


def too_long(lengths, **guards):
    norms = {f"C{i}": {"decoder": length} for i, length in enumerate(lengths)}
    return outliers(norms, Guards(**{"norm_factor": 3.0, "norm_mads": 4.0, **guards}))


def test_a_bound_is_the_larger_of_so_many_medians_and_so_many_deviations():
    assert bound_of(*LENGTHS) == 3.0
    assert bound_of(*LENGTHS, norm_mads=40.0) == pytest.approx(1.0 + 40 * 1.4826 * 0.1)
    assert bound_of(*reversed(LENGTHS)) == 3.0, "in any order"


@pytest.mark.parametrize("outlying", [["C6"], ["C5", "C6"]])
def test_the_bound_fires_at_seven_centers_with_one_and_with_two_outliers(outlying):
    lengths = [100.0 if f"C{i}" in outlying else length for i, length in enumerate(LENGTHS)]
    found = too_long(lengths)
    assert sorted(found) == outlying and {r.code for r in found.values()} == {"norm"}
    assert found["C6"].told == "part decoder moves by 100, the bound is 3 among 7 centers"


def test_an_honest_center_that_moves_further_stays():
    assert too_long([*LENGTHS[:6], 2.9]) == {} and set(too_long([*LENGTHS[:6], 3.1])) == {"C6"}
    spread = [0.2, 0.5, 1.0, 1.0, 1.8, 2.6, 5.0]  # centers that differ: median 1, median deviation 0.8
    assert bound_of(*spread) == pytest.approx(1 + 4 * 1.4826 * 0.8) and too_long(spread) == {}
    assert set(too_long(spread, norm_mads=2.0)) == {"C6"}, "what kept it are the deviations"


def test_a_cap_bounds_whatever_the_others_send():
    assert bound_of(*LENGTHS, norm_cap=1.15) == 1.15 and bound_of(*LENGTHS, norm_cap=50.0) == 3.0
    assert set(too_long(LENGTHS, norm_cap=1.15)) == {"C5", "C6"}
    assert bound_of(1.0, 9.0, norm_cap=2.0) == 2.0 and bound_of(*LENGTHS, norm_factor=0.0, norm_cap=2.0) == 2.0


def test_nothing_bounds_too_few_centers_or_a_guard_that_is_off():
    assert bound_of(1.0, 1e9) == math.inf and bound_of(*LENGTHS, norm_factor=0.0) == math.inf
    assert bound_of(1.0, 1.0, 1e9) == 3.0, "three are enough"


def test_where_most_moved_nothing_there_is_no_scale():
    still = [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1e6]
    assert bound_of(*still) == math.inf and bound_of(*still, norm_cap=5.0) == 5.0
    assert too_long(still) == {} and set(too_long(still, norm_cap=5.0)) == {"C6"}


def test_each_part_has_its_own_bound_over_the_centers_that_send_it():
    norms = {f"C{i}": {"decoder": length} for i, length in enumerate(LENGTHS)}
    norms |= {f"C{i}": norms[f"C{i}"] | {"stem": 0.01 if i else 0.5} for i in range(3)}
    found = outliers(norms, Guards(norm_factor=3.0, norm_mads=4.0))
    assert set(found) == {"C0"} and found["C0"].told.startswith("part stem moves by 0.5, the bound is 0.03 among 3")


# ------------------------------------------------------------------------------------------------ copies and counts


def test_a_fingerprint_knows_names_and_leading_numbers():
    print_ = fingerprint(STATE)
    assert print_ == fingerprint(dict(reversed(list(STATE.items())))) and len(print_) == 16
    assert print_ != fingerprint({**STATE, "decoder/a": torch.tensor([0.0, 1e-7])})
    assert print_ != fingerprint({"decoder/c" if n == "decoder/a" else n: t for n, t in STATE.items()})
    long = torch.zeros(SAMPLE + 1)
    changed = [long.index_fill(0, torch.tensor([i]), 1.0) for i in (SAMPLE - 1, SAMPLE)]
    assert [fingerprint({"w": t}) == fingerprint({"w": long}) for t in changed] == [False, True]
    assert fingerprint({"w": torch.eye(3)[:, 1]}) == fingerprint({"w": torch.tensor([0.0, 1.0, 0.0])}), "of any stride"


@pytest.mark.parametrize(
    ("print_", "start", "is_replay"),
    [
        ("used", "later", True),
        ("used", "first", False),  # the same work from the same start
        ("new", "later", False),
        ("later", "later", False),  # changes nothing
    ],
)
def test_a_replay_was_used_before_from_another_start(print_, start, is_replay):
    assert replayed(print_, start=start, seen={"used": "first", "later": "first"}) == is_replay


@pytest.mark.parametrize(("claimed", "is_rejected"), [(5, False), (0, False), (6, True), (10**9, True)])
def test_nobody_claims_more_cases_than_are_registered(claimed, is_rejected):
    found = inflated(Reply("A", counts={"cases": claimed}), registered=5)
    assert (found is not None) == is_rejected
    assert found is None or (found.code, found.told) == ("counts", f"it claims {claimed} cases, 5 are registered")


@pytest.mark.parametrize(
    ("counts", "weighed"),
    [
        ({"cases": 7}, 7),
        ({"cases": 5, "skipped": 2}, 5),
        ({"cases": 6, "skipped": 5}, 6),  # one was skipped, told as the minimum: those it used count
        ({"cases": 0, "skipped": 7}, 0),
        ({"cases": 100}, 7),
    ],
)
def test_cases_that_weigh_are_registered_and_used(counts, weighed):
    assert weighed_cases(Reply("A", counts=counts), registered=7) == weighed
