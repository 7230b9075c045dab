"""The shipped profile federation=hostile, as it is, against two attackers of seven centers."""

from functools import partial

import pytest

from common.config.load import compose_run
from simulations.virtual.fault_options import Fault
from simulations.virtual.faults import FaultyGrid
from tests.helpers.small import federate, small_run, write_centers, write_cohort

SIZES = {"CHUM": 5, "CHUP": 4, "CHUS": 4, "CHUV": 4, "HGJ": 5, "HMR": 4, "MDA": 5}
ATTACKERS, ROUNDS = ["CHUP", "CHUS"], 4


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    root = write_cohort(tmp_path_factory.mktemp("cohort"), SIZES)
    return write_centers(tmp_path_factory.mktemp("centers"), root, SIZES)


def losses(profile, folder, files, *, factor):
    """The rounds in the ledger, and the validation losses of the start and of every round, where two push backwards."""
    step = "tumour_ct"
    run = small_run(centers=sorted(SIZES), steps=[step], rounds=ROUNDS)
    composed = compose_run(["curriculum=quickstart", f"federation@steps.{step}.federation={profile}"])
    run.steps[step].federation = composed.steps[step].federation
    if profile == "mean":
        run.steps[step].federation.guards.norm_factor = 0.0  # undefended
    run.steps[step].evaluate_at = ["CHUM"]
    faults = {"a": Fault("ipm", ATTACKERS, factor=factor)}
    leader = federate(run, folder, files, grid=partial(FaultyGrid, faults=faults, seed=run.seed))
    events = [*leader.ledger.events("start_validated"), *leader.ledger.events("round_finished")]
    return events[1:], [event["validation"]["loss"] for event in events]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "stopped"),
    [
        (3.5, [{}] * ROUNDS),  # no longer than honest updates: the rule alone
        (12.0, [dict.fromkeys(ATTACKERS, "norm")] * 3 + [dict.fromkeys(ATTACKERS, "suspended")]),
    ],
)
def test_the_hostile_profile_learns_under_two_attackers_that_undo_the_mean(tmp_path, seven, factor, stopped):
    rounds, defended = losses("hostile", tmp_path / "hostile", seven, factor=factor)
    _, undefended = losses("mean", tmp_path / "mean", seven, factor=factor)
    assert [event["failed"] for event in rounds] == stopped and not any(event["void"] for event in rounds)
    assert defended[-1] < 0.97 * defended[0] and undefended[-1] > undefended[0]
