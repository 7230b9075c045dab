"""A step with a budget: its rounds follow from the centers that began it, stand in the ledger, and stay."""

from __future__ import annotations

from common.config.limits.budget import spent
from server.centers.enrolment import Enrolment
from server.centers.roster import rounds_of
from server.report.results import results
from server.run.length import rounds_of_steps, with_its_rounds
from tests.helpers.small import federate, small_run


def test_a_budget_is_spent_and_stands_in_ledger_and_results(tmp_path, small_centers):
    run = small_run("steps.tumour_ct.budget='6 cases'", steps=["tumour_ct"], rounds=1)
    configured = dict(run.steps)
    leader = federate(run, tmp_path / "run", {code: small_centers[code] for code in ("CHUM", "MDA")})
    done = rounds_of(leader.ledger, "tumour_ct")
    assert len(done) == 2 and spent(done).steps == 2 and spent(done).cases == 8  # two cases each; 4 of 6 are not enough
    assert leader.ledger.events("step_started")[0]["rounds"] == 2
    assert leader.ledger.events("step_finished")[0]["spent"] == {"steps": 2, "cases": 8}
    [row] = results(leader.ledger.events())["training"]
    spends = {"arm": "federated", "step": "tumour_ct", "rounds": 2, "steps": 2, "cases": 8}
    assert row.items() >= spends.items() and row["rounds_to_95"] <= 2
    assert rounds_of_steps(configured, leader.ledger) == {"tumour_ct": 2}
    later = Enrolment(counts={"CHUM": {"train": 1}}, training=["CHUM"])
    assert with_its_rounds(configured["tumour_ct"], leader.ledger, later).rounds == 2, "a resumed step keeps its length"
