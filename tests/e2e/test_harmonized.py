"""A step whose frozen features are harmonized over the centers: as ComBat and the fit of all rows in one place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from client.center.center import Center
from client.training.observation import linear_rows
from common.config.load import compose_run, step_to_json
from common.config.rules import broken_rules
from common.errors import BankError, RoundFailed
from common.exact.columns import COUNT, SQUARE, SUM, Rows, moment_sums
from common.exact.combat import harmonized
from common.exact.fit import fit_newton
from common.exact.step import objective_of
from server.bundle.write import write_bundle
from server.learning.exact.harmonized import EVENT, corrected
from server.run.composed import composed_run
from server.run.finish import verify_folder
from tests.helpers.small import VIEW, federate, forget, tampering, write_centers, write_cohort

SIZES = {"CHUM": 14, "CHUP": 11, "MDA": 12}
COMBAT = "steps.relapse_exact.adapter.parts.linear.harmonize=combat"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harmonized")
    return folder, write_centers(folder / "centers", write_cohort(folder / "cohort", SIZES), SIZES)


def combat_run(*overrides, centers=tuple(SIZES)):
    run = compose_run(["curriculum=exact", "backbone=tiny", "name=small", COMBAT, *overrides])
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps = {"relapse_exact": run.steps["relapse_exact"]}
    step = run.steps["relapse_exact"]
    step.view, step.centers, step.evaluate_at = VIEW, list(centers), list(centers)
    return run


def rows_of(leader, path, part="train"):
    order = replace(leader.order(leader.run.steps["relapse_exact"]), round=0)
    center = Center.open(path)
    model, _ = center.model(order)
    return model.exact_layout, linear_rows(order, model, center.case_set(order, part, model))


@pytest.fixture(scope="module")
def fitted(place):
    folder, files = place
    run = combat_run()
    assert not broken_rules(run)
    grid = tampering()
    return federate(run, folder / "run", files, grid=grid), files, grid.seen


def test_it_is_the_fit_of_harmonized_rows_in_one_process(fitted):
    leader, files, _ = fitted
    step = leader.run.steps["relapse_exact"]
    found = {code: rows_of(leader, path) for code, path in sorted(files.items())}
    layout = next(iter(found.values()))[0]
    features = np.array(["." in name for name in layout.values])
    assert 0 < features.sum() < len(features), "frozen features and variables of the record"
    lines = harmonized({c: moment_sums(layout, rows) for c, (_, rows) in found.items()}, features)
    brought = [Rows(lines[c].of(rows.values), rows.flags, rows.target) for c, (_, rows) in found.items()]
    exact = fit_newton(objective_of(step), layout, brought, penalty=step.federation.penalty)
    state = leader.bank.get(leader.bank.head("relapse_exact"))
    np.testing.assert_allclose(state["linear/weight"].numpy(), exact.weight, atol=1e-9)
    np.testing.assert_allclose(state["linear/mean"].numpy(), exact.scaling.mean, atol=1e-9)
    plain = fit_newton(
        objective_of(step), layout, [rows for _, rows in found.values()], penalty=step.federation.penalty
    )
    assert np.abs(plain.weight - exact.weight).max() > 1e-3, "harmonizing changes the fit"

    order = leader.order(step)
    order.state = state
    for code, path in files.items():  # scored patients are harmonized as training ones were
        own = corrected(leader.ledger, order, code).state
        _, rows = rows_of(leader, path, "test")
        columns = (rows.values - own["linear/mean"].numpy() * layout.known(rows.flags)) / own["linear/scale"].numpy()
        wanted = exact.output(Rows(lines[code].of(rows.values), rows.flags, rows.target))
        known = np.concatenate([columns, rows.flags], axis=1) if layout.with_flags else columns
        np.testing.assert_allclose(known @ exact.weight.T + exact.bias, wanted, atol=1e-9)


def test_each_center_gets_its_own_line_alone_and_tells_nothing_more(fitted):
    leader, _, seen = fitted
    assert sorted(leader.ledger.events(EVENT)[0]["centers"]) == sorted(SIZES)
    asked = [(sent, reply) for sent, reply in seen if sent.metadata.message_type == "query.sums"]
    first, second = ([pair for pair in asked if round_of(pair[0]) == number] for number in (0, 1))
    assert all({*reply.content["sums"]} == {COUNT, SUM, SQUARE} for _, reply in first)
    assert all(not {*reply.content["sums"]} & {COUNT, SUM, SQUARE} for _, reply in second)
    means = {sent.content.array_records["known"]["newton.mean"].numpy().tobytes() for sent, _ in second}
    assert len(means) == len(second) == len(SIZES)
    names = {name for sent, _ in second for name in sent.content.array_records["known"]}
    assert not [name for name in names if "harmon" in name or any(code in name for code in SIZES)]
    assert verify_folder(leader.folder.path).total == 0


def round_of(sent) -> int:
    return int(sent.content.config_records["config"]["round"])


def test_it_is_scored_and_resumed_as_any_other(fitted, place):
    leader, files, _ = fitted
    pooled = [r for r in leader.ledger.events("step_finished")[0]["scores"] if r["center"] == "pooled"]
    assert next(r["value"] for r in pooled if r["metric"] == "c_index") is not None
    again = federate(combat_run(), place[0] / "run", files)
    assert again.bank.head("relapse_exact") == leader.bank.head("relapse_exact")


def test_what_cannot_be_harmonized_ends_in_a_sentence(place, tmp_path):
    _folder, files = place
    with pytest.raises(RoundFailed, match="nothing to be harmonized with"):
        federate(combat_run(centers=["CHUM"]), tmp_path / "one", files)
    small = write_centers(
        tmp_path / "centers", write_cohort(tmp_path / "cohort", {"CHUM": 14, "HMR": 3}), ["CHUM", "HMR"]
    )
    with pytest.raises(RoundFailed, match=r"too few at HMR"):
        federate(combat_run(centers=["CHUM", "HMR"]), tmp_path / "few", small)
    forget()
    assert any("neither a ridge" in p for p in broken_rules(compose_run(
        ["curriculum=exact", "backbone=tiny", "steps.hpv_exact.adapter.parts.linear.harmonize=combat"])))  # fmt: skip
    assert any("it can be combat" in p for p in broken_rules(combat_run(COMBAT.replace("=combat", "=mean"))))


def test_a_bank_alone_does_not_hold_the_centers_lines(fitted, tmp_path):
    leader, _, _ = fitted
    with pytest.raises(BankError, match="harmonized by center"):
        write_bundle(leader.folder, "relapse_exact", tmp_path / "bundle")
    with pytest.raises(BankError, match="harmonized by center"):
        composed_run(["curriculum=evaluate", f"model={leader.folder.path}"])


def test_steps_without_it_keep_their_keys():
    step = compose_run(["curriculum=exact", "backbone=tiny"]).steps["relapse_exact"]
    assert "harmonize" not in step_to_json(step) and "compared_with" not in step_to_json(step)
