"""The bytes in results are those of every message of a run, whatever it was for and however often it was resumed."""

import json

import jsonschema
import pytest

from common.config.federation import Compression
from common.config.load import compose_run
from common.protocol.wire import content_bytes
from server.evaluation import scoring
from server.report.results import SCHEMA, results
from tests.helpers.small import VIEW, code_of, federate, small_run, tampering

CENTERS = ["CHUM", "CHUP"]


class Killed(BaseException):
    """The process ends here."""


def a_run(kind="none"):
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"])
    for step in run.steps.values():
        step.federation.compression = Compression(kind)
    return run


def crossed(grid) -> dict[str, tuple[int, int]]:
    """Center -> bytes up and down of all that a recording grid saw."""
    found: dict[str, tuple[int, int]] = {}
    for sent, reply in grid.seen:
        up, down = found.get(code_of(reply), (0, 0))
        found[code_of(reply)] = (up + content_bytes(reply.content), down + content_bytes(sent.content))
    return found


def counted(rows) -> dict[str, tuple[int, int]]:
    """Center -> bytes up and down of all rows."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        up, down = found.get(row["center"], (0, 0))
        found[row["center"]] = (up + row["bytes_up"], down + row["bytes_down"])
    return found


def of_rounds(leader) -> list[dict]:
    """The rows of rounds, made from the ledger's rounds alone."""
    return [
        {"step": e["step"], "phase": "rounds", "round": e["round"], "center": center}
        | {f"bytes_{way}": sent for way, sent in ways.items()}
        for e in leader.ledger.events("round_finished")
        for center, ways in e["bytes"].items()
    ]


@pytest.mark.parametrize("kind", ["none", "int8"])
def test_the_bytes_in_results_are_those_of_all_messages(tmp_path, small_centers, kind):
    grid = tampering()
    leader = federate(a_run(kind), tmp_path, small_centers, grid=grid)
    found = results(leader.ledger.events())
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    sent = found["communication"]
    assert counted(sent) == crossed(grid)
    assert {row["phase"] for row in sent} == {"enrol", "start", "rounds", "test"}
    assert [row for row in sent if row["phase"] == "rounds"] == of_rounds(leader)
    assert {row["round"] for row in sent if row["phase"] != "rounds"} == {0}
    assert {row["center"] for row in sent if row["phase"] != "enrol"} == set(CENTERS)


def test_a_run_killed_among_its_scores_counts_every_message_once(tmp_path, small_centers, monkeypatch):
    grid, write = tampering(), scoring.write_sums

    def die(path, sums):
        write(path, sums)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "write_sums", die)
        with pytest.raises(Killed):
            federate(a_run(), tmp_path, small_centers, grid=grid)
    leader = federate(a_run(), tmp_path, small_centers, grid=grid)
    assert counted(results(leader.ledger.events())["communication"]) == crossed(grid)
    before = len(grid.seen)
    leader = federate(a_run(), tmp_path, small_centers, grid=grid)
    assert len(grid.seen) == before
    assert counted(results(leader.ledger.events())["communication"]) == crossed(grid)


def test_questions_for_a_grid_and_for_sums_are_counted(tmp_path, small_centers):
    task = "steps.relapse_exact.task"
    words = [f"{task}.loss=hazard", f"{task}.grid=quantiles", f"{task}.bins=3", f"{task}.horizon_days=1600"]
    run = compose_run(["curriculum=exact", "backbone=tiny", "name=small", *words])
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps = {"relapse_exact": run.steps["relapse_exact"]}
    step = run.steps["relapse_exact"]
    step.view, step.centers, step.evaluate_at = VIEW, ["CHUM", "CHUP", "MDA"], ["CHUM", "CHUP", "MDA"]
    grid = tampering()
    leader = federate(run, tmp_path, small_centers, grid=grid)
    sent = results(leader.ledger.events())["communication"]
    assert counted(sent) == crossed(grid)
    assert {row["phase"] for row in sent} == {"enrol", "sums", "test"}
    asked = {event["round"] for event in leader.ledger.events("newton_round")}
    assert len(asked) > 2 and {row["round"] for row in sent if row["phase"] == "sums"} == asked
