"""Newton steps over the real messages: equal to the pooled fit, resumed bit for bit, and a center can leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.center.center import Center
from client.training.observation import linear_rows
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.config.run import Run
from common.errors import ConfigError, RoundFailed
from common.exact.fit import fit_newton, fit_ridge
from common.exact.objectives import GRADIENT, HESSIAN, LOSS
from common.exact.step import exact_part, objective_of, state_of
from common.protocol.wire import pack_reply, unpack_reply
from common.store.ledger import Ledger
from server.__main__ import main
from server.centers.quarantine import strikes
from server.learning.withdraw import withdraw
from server.report.reading.record import read_run
from server.report.results import results
from server.run.finish import verify_folder, write_outputs
from server.run.folder import RunFolder
from tests.helpers.small import VIEW, adapters, code_of, federate, forget, tampering

CENTERS = ["CHUM", "CHUP", "MDA"]


def exact_run(*overrides: str, steps: tuple[str, ...] = ("relapse_exact", "hpv_exact")) -> Run:
    run = compose_run(["curriculum=exact", "backbone=tiny", "name=small", *overrides])
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps = {name: run.steps[name] for name in steps}
    for step in run.steps.values():
        step.view, step.centers, step.evaluate_at = VIEW, list(CENTERS), list(CENTERS)
    return run


def expected(leader, files, name: str, centers=CENTERS) -> dict[str, torch.Tensor]:
    """The fit of the centers' own rows in one process."""
    step = leader.run.steps[name]
    order = replace(leader.order(step), round=0)
    rows, layout = [], None
    for code in centers:
        center = Center.open(files[code])
        model, _ = center.model(order)
        layout = model.exact_layout
        rows.append(linear_rows(order, model, center.case_set(order, "train", model)))
    assert layout is not None
    penalty, objective = step.federation.penalty, objective_of(step)
    fitted = (
        fit_newton(objective, layout, rows, penalty=penalty) if objective else fit_ridge(layout, rows, penalty=penalty)
    )
    return state_of(fitted, exact_part(step)[0])


def head(leader, name: str) -> dict[str, torch.Tensor]:
    return leader.bank.get(leader.bank.head(name))


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 1e-9) -> bool:
    return set(a) == set(b) and all(torch.allclose(a[k], b[k], atol=tolerance, rtol=0) for k in a)


@pytest.fixture(scope="module")
def fitted(small_centers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact") / "run"
    return federate(exact_run(), folder, small_centers), small_centers


@pytest.mark.parametrize("name", ["relapse_exact", "hpv_exact"])
def test_the_federated_fit_is_the_fit_of_all_rows_in_one_process(fitted, name):
    leader, files = fitted
    state = head(leader, name)
    assert close(state, expected(leader, files, name), 1e-12)
    assert all(t.dtype == torch.float64 for t in state.values())
    assert state["linear/weight"].abs().max() > 1e-3


def test_ridge_takes_one_question_and_cox_a_few(fitted):
    leader, _ = fitted
    asked = {name: len(leader.ledger.events("newton_round", step=name)) for name in leader.run.steps}
    assert asked["hpv_exact"] == 1 and 3 <= asked["relapse_exact"] <= 9
    assert [e["settled"] for e in leader.ledger.events("newton_settled")] == [True]


def test_it_is_committed_scored_and_reported_like_any_other_step(fitted):
    leader, _ = fitted
    rows = leader.ledger.events("step_finished")[-1]["scores"]
    assert {(r["task"], r["metric"]) for r in rows} >= {("relapse_exact", "c_index"), ("hpv_exact", "auroc")}
    assert verify_folder(leader.folder.path).total == 0
    write_outputs(leader.folder.path)
    assert leader.folder.report.exists()
    written = json.loads(leader.folder.results.read_text())["scores"]
    assert {row["task"] for row in written} == {"relapse_exact", "hpv_exact"}


def test_only_ridge_sums_stay_on_the_server(fitted):
    leader, _ = fitted
    assert leader.folder.all_sums("relapse_exact") == []
    assert [p.stem for p in leader.folder.all_sums("hpv_exact")] == CENTERS


def test_hpv_its_flag_and_the_treatment_are_no_columns_of_the_task_that_predicts_it(fitted):
    leader, files = fitted
    step = leader.run.steps["hpv_exact"]
    names = Center.open(files["CHUM"]).model(leader.order(step))[0].exact_layout.names
    assert "age" in names and "age:known" in names
    assert not [n for n in names if n.split(":")[0] in ("hpv", "chemotherapy", "radiotherapy", "surgery")]


def test_a_resumed_fit_asks_only_what_it_was_not_told_and_ends_with_the_same_bits(fitted, tmp_path):
    leader, files = fitted

    def dies(sent, reply):
        if sent.metadata.message_type == "query.sums" and sent.content.config_records["config"]["round"] == 3:
            raise KeyboardInterrupt
        return reply

    with pytest.raises(KeyboardInterrupt):
        federate(exact_run(), tmp_path / "run", files, grid=tampering(dies))
    grid = tampering()
    again = federate(exact_run(), tmp_path / "run", files, grid=grid)
    rounds = [
        s.content.config_records["config"]["round"] for s, _ in grid.seen if s.metadata.message_type == "query.sums"
    ]
    assert adapters(again) == adapters(leader) and 1 not in rounds


def test_a_center_lost_on_the_way_leaves_the_fit_as_if_it_had_never_taken_part(small_centers, tmp_path):
    def silent(sent, reply):
        late = sent.metadata.message_type == "query.sums" and sent.content.config_records["config"]["round"] >= 2
        return None if late and code_of(reply) == "CHUP" else reply

    run = exact_run(steps=("relapse_exact",))
    leader = federate(run, tmp_path / "run", small_centers, grid=tampering(silent))
    assert leader.ledger.events("newton_lost")[0]["centers"] == {"CHUP": "no_reply"}
    assert close(head(leader, "relapse_exact"), expected(leader, small_centers, "relapse_exact", ["CHUM", "MDA"]))
    run.steps["relapse_exact"].federation.quorum = 1.0
    with pytest.raises(RoundFailed, match=r"at least 3 centers; 2 are left \(CHUP: no_reply\)"):
        federate(run, tmp_path / "strict", small_centers, grid=tampering(silent))


def test_undeclared_or_broken_sums_are_not_used(small_centers, tmp_path):
    from flwr.app import Array

    def broken(sent, reply):
        if sent.metadata.message_type == "query.sums" and code_of(reply) == "MDA":
            sums = reply.content.array_records["sums"]
            first = sorted(sums)[0]
            sums[first] = Array(np.full_like(sums[first].numpy(), np.nan))
        return reply

    leader = federate(exact_run(steps=("hpv_exact",)), tmp_path / "run", small_centers, grid=tampering(broken))
    assert leader.ledger.events("newton_lost")[0]["centers"] == {"MDA": "not_finite"}
    assert close(head(leader, "hpv_exact"), expected(leader, small_centers, "hpv_exact", ["CHUM", "CHUP"]))


# ---------------------------------------------------------------------------------------------------- one center lies


def lying(change, *, center="MDA"):
    """A grid on which one center's sums are changed: ``change(sums, round)`` gives what it says instead."""

    def told(sent, reply):
        if sent.metadata.message_type == "query.sums" and code_of(reply) == center:
            found = unpack_reply(reply.content)
            round = int(sent.content.config_records["config"]["round"])
            reply.content = pack_reply(replace(found, sums=change(dict(found.sums), round)))
        return reply

    return tampering(told)


def risen(sums, round, by=1e6):
    """A loss that rises from the second question of the search on, and nothing else."""
    return sums | {LOSS: sums[LOSS] + by} if round >= 2 else sums


def without_moments(sums, round):
    """No moments, and then a gradient and a Hessian that outweigh everybody else's."""
    if round == 0:
        return {name: value * 0 for name, value in sums.items()}
    return sums | {GRADIENT: sums[GRADIENT] * 0 + 1e6, HESSIAN: np.eye(sums[HESSIAN].shape[1])[None] * 1e6}


def risen_by(amount):
    return lambda sums, round: risen(sums, round, by=amount)


@pytest.mark.parametrize(
    ("loss", "lie", "told"),
    [
        ("cox", risen, "newton.loss is more than the center's own columns allow"),
        ("hazard", risen, "newton.loss is more than the center's own columns allow"),
        ("cox", risen_by(1.0), "newton.loss at an earlier question lies below its tangent here"),
        ("hazard", risen_by(5.0), "newton.loss at an earlier question lies below its tangent here"),
        ("cox", without_moments, "newton.gradient is more than the center's own columns allow"),
        ("hazard", without_moments, "newton.gradient is more than the center's own columns allow"),
    ],
)
def test_a_liar_is_named_and_the_fit_is_that_of_the_others(small_centers, tmp_path, loss, lie, told):
    run = exact_run(f"steps.relapse_exact.task.loss={loss}", steps=("relapse_exact",))
    leader = federate(run, tmp_path / "run", small_centers, grid=lying(lie))
    [lost] = leader.ledger.events("newton_lost")
    assert set(lost["centers"]) == {"MDA"} and f"impossible ({told})" in lost["centers"]["MDA"]
    assert strikes(leader.ledger) == {"MDA": 1}
    [settled] = leader.ledger.events("newton_settled")
    assert settled["settled"] and settled["rose"] == []
    assert close(
        head(leader, "relapse_exact"), expected(leader, small_centers, "relapse_exact", ["CHUM", "CHUP"]), 1e-7
    )


def test_a_fit_that_nobodys_sums_make_impossible_fails_by_name_and_can_be_asked_again(
    small_centers, tmp_path, fitted, monkeypatch
):
    """A loss that is wrong by less than the checks see, so that no step seems to lead down: nothing is committed."""
    monkeypatch.setattr("server.learning.exact.questions.no_convex_function", lambda earlier, now, room: "")
    run = exact_run(steps=("relapse_exact",))
    run.steps["relapse_exact"].rounds = 40
    with pytest.raises(RoundFailed, match=r"However short a step the search took, its loss rose at MDA;") as failed:
        federate(run, tmp_path / "run", small_centers, grid=lying(risen_by(1.0)))
    assert "nothing is committed" in str(failed.value)
    ledger, folder = Ledger(RunFolder(tmp_path / "run").ledger), RunFolder(tmp_path / "run")
    [unsettled] = ledger.events("newton_settled")
    assert not unsettled["settled"] and unsettled["rose"] == ["MDA"]
    assert not ledger.events("step_finished") and folder.all_sums("relapse_exact") == []
    again = federate(run, tmp_path / "run", small_centers)
    leader, _ = fitted
    assert close(head(again, "relapse_exact"), head(leader, "relapse_exact"), 0.0)


def test_patients_that_come_during_a_fit_are_no_lie(small_centers, tmp_path):
    """The center's later answers are of another table: it leaves this fit, without a strike."""

    def grown(sent, reply):
        late = sent.metadata.message_type == "query.sums" and sent.content.config_records["config"]["round"] >= 2
        if late and code_of(reply) == "CHUP":
            found = unpack_reply(reply.content)
            sums = {name: value * 2 for name, value in found.sums.items()}
            more = found.counts | {"cases": 2 * found.counts["cases"]}
            reply.content = pack_reply(replace(found, sums=sums, counts=more))
        return reply

    leader = federate(exact_run(steps=("relapse_exact",)), tmp_path / "run", small_centers, grid=tampering(grown))
    assert leader.ledger.events("newton_lost")[0]["centers"] == {"CHUP": "changed"}
    assert strikes(leader.ledger) == {}
    assert close(head(leader, "relapse_exact"), expected(leader, small_centers, "relapse_exact", ["CHUM", "MDA"]))


def test_only_declared_sums_and_counts_leave_a_center(small_centers, tmp_path):
    grid = tampering()
    federate(exact_run(), tmp_path / "run", small_centers, grid=grid)
    replies = [reply for sent, reply in grid.seen if sent.metadata.message_type == "query.sums"]
    assert replies
    for reply in replies:
        assert len(reply.content.array_records["arrays"]) == 0
        names = set(reply.content.array_records["sums"])
        assert all(name.split(".")[0] in ("moments", "newton", "ridge") for name in names)
        assert set(reply.content.config_records["status"]) == {
            "center", "code", "order", "round", "seconds", "cases", "skipped",
        }  # fmt: skip


def test_a_center_below_its_own_minimum_cell_sends_no_sums(small_root, tmp_path):
    from tests.helpers.small import write_centers

    files = write_centers(tmp_path / "centers", small_root, CENTERS, minimum_cell=3)  # each has two training cases
    grid = tampering()
    with pytest.raises(RoundFailed, match=r"0 are left \(CHUM: declined.cases"):
        federate(exact_run(steps=("relapse_exact",)), tmp_path / "run", files, grid=grid)
    answers = [reply for sent, reply in grid.seen if sent.metadata.message_type == "query.sums"]
    assert answers and all(len(reply.content.array_records["sums"]) == 0 for reply in answers)


# -------------------------------------------------------------------------------------------------------- withdrawal


def test_after_a_withdrawal_both_steps_equal_a_run_that_never_had_the_center(small_centers, tmp_path, capsys):
    path = tmp_path / "run"
    before = federate(exact_run(), path, small_centers)
    kept = {name: before.bank.head(name) for name in before.run.steps}
    assert main(["withdraw", str(path), "--center", "CHUP"]) == 0
    told = capsys.readouterr().out
    assert "hpv_exact: its sums are subtracted" in told and "relapse_exact: will be fitted again without CHUP" in told
    assert close(head(before, "hpv_exact"), expected(before, small_centers, "hpv_exact", ["CHUM", "MDA"]))
    assert [p.stem for p in before.folder.all_sums("hpv_exact")] == ["CHUM", "MDA"]
    grid = tampering()
    after = federate(exact_run(), path, small_centers, grid=grid)
    asked = {code_of(reply) for sent, reply in grid.seen if sent.metadata.message_type == "query.sums"}
    assert asked == {"CHUM", "MDA"}
    assert close(head(after, "relapse_exact"), expected(after, small_centers, "relapse_exact", ["CHUM", "MDA"]))
    assert all(after.bank.head(name) != key for name, key in kept.items())
    assert [e["step"] for e in after.ledger.events("step_refitted")] == ["hpv_exact", "relapse_exact"]
    assert federate(exact_run(), path, small_centers).bank.heads() == after.bank.heads()  # nothing is left to do
    assert [e["step"] for e in after.ledger.events("step_rescored")] == ["hpv_exact", "relapse_exact"]
    assert verify_folder(path).total == 0
    assert main(["withdraw", str(path), "--center", "CHUP"]) == 2
    assert "has left this run before" in capsys.readouterr().err


def test_after_a_withdrawal_scores_and_curves_are_those_of_a_run_that_never_had_the_center(small_centers, tmp_path):
    path = tmp_path / "run"
    federate(exact_run(), path, small_centers)
    withdraw(path, "CHUP")
    between = results(Ledger(RunFolder(path).ledger).events())
    assert {row["value"] for row in between["scores"] if row["step"] != "start"} == {None}
    after = federate(exact_run(), path, small_centers)
    never = exact_run()
    for step in never.steps.values():
        step.centers = step.evaluate_at = ["CHUM", "MDA"]
    other = federate(never, tmp_path / "never", small_centers)
    records = [read_run(leader.ledger.events()) for leader in (after, other)]
    mine, theirs = (
        {(r["step"], r["task"], r["metric"], r["center"]): r for r in record.rows if r["step"] != "start"}
        for record in records
    )
    assert mine.keys() == theirs.keys() and {key[3] for key in mine} == {"CHUM", "MDA", "pooled"}
    for key, row in mine.items():
        assert row["n"] == theirs[key]["n"] and "missing" not in row
        assert row["value"] == (None if theirs[key]["value"] is None else pytest.approx(theirs[key]["value"], abs=1e-9))
    assert records[0].curves.keys() == records[1].curves.keys() == {"relapse_exact", "hpv_exact"}
    for name in ("at_risk", "events"):
        assert records[0].curves["relapse_exact"][name] == records[1].curves["relapse_exact"][name]
    assert {row["center"] for row in records[0].superseded} == {"CHUM", "CHUP", "MDA", "pooled"}
    for name in after.run.steps:
        [mine_known], [their_known] = (
            [event["known"] for event in leader.ledger.events(kind, step=name)]
            for leader, kind in ((after, "step_rescored"), (other, "step_finished"))
        )
        assert mine_known.keys() == their_known.keys()
        assert all(np.allclose(mine_known[key], their_known[key], atol=1e-9) for key in mine_known)


def test_sums_that_the_server_never_held_cannot_be_subtracted(small_centers, tmp_path):
    run = exact_run(steps=("hpv_exact",))
    run.steps["hpv_exact"].federation.keep_sums = False
    leader = federate(run, tmp_path / "run", small_centers)
    with pytest.raises(ConfigError, match="hidden by secure sums or forgotten"):
        withdraw(tmp_path / "run", "CHUM")
    assert leader.ledger.events("center_withdrawn") == []


def test_a_withdrawal_that_cannot_be_is_explained(fitted, tmp_path):
    leader, _ = fitted
    with pytest.raises(
        ConfigError, match="No finished step of this run was trained at 'HMR'; centers: CHUM, CHUP, MDA"
    ):
        withdraw(leader.folder.path, "HMR")


# ------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("federation@steps.relapse_exact.federation=mean", "fitted by federation=newton"),
        ("adapter@steps.relapse_exact.adapter=none", "fits one linear or voxel_linear part and nothing else"),
        ("steps.relapse_exact.task.loss=deephit", "needs an objective that is a sum over cases"),
        ("steps.relapse_exact.federation.objective=ridge", "needs an objective that is a sum over cases"),
        ("steps.relapse_exact.federation.penalty=0", "penalty is 0"),
        ("steps.relapse_exact.federation.penalties=[1,0]", "penalty is 0"),
        ("steps.hpv_exact.federation.penalties=[1,3]", "fitted with federation.penalty alone"),
        ("steps.relapse_exact.adapter.parts.linear.variables=[agee]", "'agee' is no variable"),
    ],
)
def test_what_newton_cannot_do_is_a_broken_rule(change, sentence):
    assert any(sentence in problem for problem in broken_rules(compose_run(["curriculum=exact", change])))


def test_records_alone_need_no_image(small_centers, tmp_path):
    run = exact_run("steps.relapse_exact.modalities=[RECORD]", steps=("relapse_exact",))
    forget()
    leader = federate(run, tmp_path / "run", small_centers)
    assert close(head(leader, "relapse_exact"), expected(leader, small_centers, "relapse_exact"))


def test_a_discrete_hazard_is_fitted_exactly_too(small_centers, tmp_path):
    run = exact_run("steps.relapse_exact.task.loss=hazard", steps=("relapse_exact",))
    leader = federate(run, tmp_path / "run", small_centers)
    assert close(head(leader, "relapse_exact"), expected(leader, small_centers, "relapse_exact"), 1e-7)
    assert Path(leader.folder.path).exists()


def test_a_grid_of_quantiles_is_chosen_once_from_histograms_and_becomes_part_of_the_step(small_centers, tmp_path):
    words = ("steps.relapse_exact.task.loss=hazard", "steps.relapse_exact.task.grid=quantiles")
    small = ("steps.relapse_exact.task.bins=3", "steps.relapse_exact.task.horizon_days=1600")
    grid = tampering()
    path = tmp_path / "run"
    leader = federate(exact_run(*words, *small, steps=("relapse_exact",)), path, small_centers, grid=grid)
    (chosen,) = leader.ledger.events("grid_chosen")
    assert chosen["cuts_days"][0] == 0 and chosen["cuts_days"][-1] == 1600 and len(chosen["cuts_days"]) == 3
    assert leader.bank.entry(leader.bank.head("relapse_exact")).step.task.cuts_days == chosen["cuts_days"]
    told = [r for s, r in grid.seen if s.content.config_records["config"]["subset"] == "grid"]
    assert sorted(code_of(reply) for reply in told) == CENTERS
    assert all(set(reply.content.array_records["sums"]) == {"grid.events"} for reply in told)
    again = federate(exact_run(*words, *small, steps=("relapse_exact",)), path, small_centers)
    assert again.run.steps["relapse_exact"].task.cuts_days == chosen["cuts_days"]
    assert len(again.ledger.events("grid_chosen")) == 1
    assert close(head(leader, "relapse_exact"), expected(leader, small_centers, "relapse_exact"), 1e-7)
