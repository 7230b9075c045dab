"""Every fault ends within the deadline, with an entry in the ledger that says what it was, and spoils nothing."""

from functools import partial

import pytest
import torch

from common.config.federation import FEDERATIONS, ScaffoldFederation
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.errors import ConfigError, RoundFailed, UnknownName
from common.store.ledger import Ledger
from server.centers.quarantine import release, strikes, suspended
from simulations.virtual.fault_options import FAULTS, Fault
from simulations.virtual.faults import TAMPER, FaultyGrid, flipped
from tests.helpers.small import adapters, federate, small_run

CENTERS = ["CHUM", "CHUP", "HMR", "MDA"]
LEFT_OUT = {
    "count_inflation": "counts", "crash": "no_reply", "dropout": "no_reply", "inf": "not_finite", "nan": "not_finite",
    "scaled": "norm", "straggler": "no_reply", "wrong_keys": "undeclared", "wrong_shape": "undeclared",
}  # fmt: skip
LATER = {"replay": "replayed", "stale": "stale"}  # what it sends again must have been used once
UNSEEN = {"alie", "duplicate", "ipm", "label_flip", "sign_flip"}  # well-formed and of a usual length: the rule's work


def faulty(run, folder, files, *, faults, workers=0):
    return federate(run, folder, files, workers=workers, grid=partial(FaultyGrid, faults=faults, seed=run.seed))


def a_run(rounds=1, **federation):
    run = small_run(centers=CENTERS, steps=["tumour_ct"], rounds=rounds)
    step = run.steps["tumour_ct"]
    step.federation.quorum, step.evaluate_at = 0.5, ["CHUM"]
    for name, value in federation.items():
        setattr(step.federation, name, value)
    return run


def rounds_of(leader):
    return leader.ledger.events("round_finished")


@pytest.fixture(scope="module")
def clean(tmp_path_factory, small_centers):
    """Two rounds where nothing goes wrong, and one of three centers."""
    whole = faulty(a_run(2), tmp_path_factory.mktemp("clean"), small_centers, faults={})
    fewer = {code: path for code, path in small_centers.items() if code != "CHUP"}
    three = small_run(centers=[c for c in CENTERS if c != "CHUP"], steps=["tumour_ct"], rounds=1)
    return rounds_of(whole), rounds_of(faulty(three, tmp_path_factory.mktemp("three"), fewer, faults={}))


def test_every_fault_of_the_schema_is_here_and_has_its_expectation():
    assert {*LEFT_OUT, *LATER, *UNSEEN} == set(FAULTS) and set(TAMPER) < set(FAULTS)


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_fault_costs_its_own_update_and_stands_in_the_ledger(tmp_path, small_centers, clean, kind):
    run = a_run(deadline_s=2.0 if kind == "straggler" else 3600.0)
    factor = 1000.0 if kind == "straggler" else None
    leader = faulty(run, tmp_path, small_centers, faults={"f": Fault(kind, ["CHUP"], factor=factor)})
    [event] = rounds_of(leader)
    assert event["failed"] == {"CHUP": LEFT_OUT[kind]} and not event["void"]
    assert event["state_hash"] == clean[1][0]["state_hash"], "as if CHUP had not been there"
    told = event["quarantined"].get("CHUP")
    assert (told is None) == (LEFT_OUT[kind] == "no_reply") and (told is None or told["code"] == LEFT_OUT[kind])


@pytest.mark.parametrize("kind", LATER)
def test_an_old_update_is_not_used_twice(tmp_path, small_centers, clean, kind):
    leader = faulty(a_run(2), tmp_path, small_centers, faults={"f": Fault(kind, ["CHUP"], rounds=[2])})
    first, second = rounds_of(leader)
    assert first["state_hash"] == clean[0][0]["state_hash"] and second["failed"] == {"CHUP": LATER[kind]}


@pytest.mark.parametrize("memory", ["scaffold", "int8"])
def test_what_a_crash_left_in_the_vault_is_not_used(tmp_path, small_centers, memory):
    found = []
    for kind in ("crash", "dropout"):
        run = a_run(3)
        if memory == "scaffold":
            run.steps["tumour_ct"].federation = ScaffoldFederation(quorum=0.5)
        else:
            run.steps["tumour_ct"].federation.compression.kind = memory
        leader = faulty(run, tmp_path / kind, small_centers, faults={"f": Fault(kind, ["CHUP"], rounds=[2])})
        found.append([(event["failed"], event["state_hash"]) for event in rounds_of(leader)])
    assert found[0] == found[1] and found[0][1][0] == {"CHUP": "no_reply"} and not found[0][2][0]


def test_a_duplicate_counts_once(tmp_path, small_centers, clean):
    leader = faulty(a_run(2), tmp_path, small_centers, faults={"f": Fault("duplicate", ["CHUP", "MDA"])})
    assert [e["state_hash"] for e in rounds_of(leader)] == [e["state_hash"] for e in clean[0]]
    assert rounds_of(leader)[0]["duplicates"] == ["CHUP", "MDA"] and not rounds_of(leader)[0]["failed"]
    assert rounds_of(leader)[0]["bytes"]["CHUP"]["up"] > 1.5 * rounds_of(leader)[0]["bytes"]["CHUM"]["up"]


@pytest.mark.parametrize("kind", sorted(UNSEEN - {"duplicate"}))
def test_a_quiet_lie_changes_the_mean_and_is_the_rules_work(tmp_path, small_centers, clean, kind):
    leader = faulty(a_run(), tmp_path, small_centers, faults={"f": Fault(kind, ["CHUP"])})
    [event] = rounds_of(leader)
    assert not event["failed"] and event["state_hash"] != clean[0][0]["state_hash"]


def test_label_flips_turn_every_known_target_around():
    target = {
        "mask": torch.tensor([0, 1, 2]), "event": torch.tensor([0.0, 1.0]), "days": torch.tensor([5.0, 1900.0]),
        "labels": torch.tensor([1.0, 0.0]), "voxel_mm3": torch.tensor(8.0),
    }  # fmt: skip
    new = {name: value.tolist() for name, value in flipped(target).items()}
    assert new == {"mask": [1, 0, 0], "event": [1, 0], "days": [1820, 1], "labels": [0, 1], "voxel_mm3": 8}


def test_who_drops_out_is_drawn_from_the_seed_and_rounds_go_on(tmp_path, small_centers):
    def failed(name):
        faults = {"f": Fault("dropout", probability=0.4)}
        return [
            sorted(e["failed"])
            for e in rounds_of(faulty(a_run(4, quorum=0.25), tmp_path / name, small_centers, faults=faults))
        ]

    first = failed("a")
    assert first == failed("b") and 0 < sum(map(len, first)) < 16


# ------------------------------------------------------------------------------------------------ void and suspended


def test_a_step_without_a_round_that_counts_fails_in_the_ledger_and_is_repeated(tmp_path, small_centers, clean):
    faults = {"f": Fault("nan", ["CHUM", "CHUP", "MDA"])}
    with pytest.raises(RoundFailed, match=r"no round had enough usable updates .*CHUP: not_finite"):
        faulty(a_run(2), tmp_path, small_centers, faults=faults)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert [e["why_void"] for e in ledger.events("round_finished")] == ["1 of 2 needed updates can be used."] * 2
    [failed] = ledger.events("step_failed")
    assert failed["step"] == "tumour_ct" and set(failed["rounds"]) == {"1", "2"} and not ledger.events("step_finished")
    resumed = faulty(a_run(2), tmp_path, small_centers, faults={})
    assert [e["state_hash"] for e in rounds_of(resumed)[2:]] == [e["state_hash"] for e in clean[0]]
    assert resumed.ledger.finished("tumour_ct")


def test_a_center_rejected_again_and_again_is_suspended_until_released(tmp_path, small_centers):
    run = a_run(5)
    run.steps["tumour_ct"].federation.guards.strikes = 2
    faults = {"f": Fault("nan", ["CHUP"], rounds=[1, 2, 3])}
    leader = faulty(run, tmp_path, small_centers, faults=faults)
    assert [e["failed"] for e in rounds_of(leader)] == [{"CHUP": "not_finite"}] * 2 + [{"CHUP": "suspended"}] * 3
    assert suspended(leader.ledger, limit=2) == ["CHUP"] and strikes(leader.ledger) == {"CHUP": 2}
    assert release(leader.ledger, ["CHUP"], reason="mended") == ["CHUP"]
    assert suspended(Ledger(leader.ledger.path), limit=2) == []


def test_a_release_reaches_a_run_that_is_going_on(tmp_path, small_centers, monkeypatch):
    from server.run.narration import Narrator

    def let_go(self, event, *, of):
        if event["round"] == 3:
            release(Ledger(tmp_path / "ledger.jsonl"), ["CHUP"], reason="looked at")

    monkeypatch.setattr(Narrator, "round_finished", let_go)
    run = a_run(4)
    run.steps["tumour_ct"].federation.guards.strikes = 1
    leader = faulty(run, tmp_path, small_centers, faults={"f": Fault("inf", ["CHUP"], rounds=[1])})
    codes = [list(event["failed"].values()) for event in rounds_of(leader)]
    assert codes == [["not_finite"], ["suspended"], ["suspended"], []]
    assert leader.ledger.verify() > 0


def test_a_suspended_center_does_not_train_in_the_next_step(tmp_path, small_centers):
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    for step in run.steps.values():
        step.federation.quorum, step.federation.guards.strikes = 0.5, 1
    leader = faulty(run, tmp_path, small_centers, faults={"f": Fault("wrong_keys", ["MDA"], ["tumour_ct"])})
    started = leader.ledger.events("step_started", step="tumour_ctpet")[0]
    assert started["refused"] == {"MDA": "suspended"} and "MDA" not in started["centers"]


def test_a_rule_goes_on_without_a_suspended_attacker_in_this_step_and_the_next(tmp_path, small_centers):
    run = small_run(centers=["CHUM", "CHUP", "HMR", "MDA"], steps=["tumour_ct", "tumour_ctpet"], rounds=2)
    for step in run.steps.values():
        step.federation = FEDERATIONS["norm_clip"](faulty=1, quorum=0.5)
        step.federation.guards.strikes = 1
    run.steps["tumour_ct"].centers = run.steps["tumour_ctpet"].centers = ["CHUM", "CHUP", "MDA"]  # 2 x 1 + 1
    leader = faulty(run, tmp_path, small_centers, faults={"f": Fault("nan", ["MDA"], ["tumour_ct"], rounds=[1])})
    assert [(e["void"], sorted(e["train"])) for e in rounds_of(leader)] == [(False, ["CHUM", "CHUP"])] * 4
    notes = [e["aggregation"]["notes"] for e in rounds_of(leader)]
    assert all("withstands 0 instead of 1 faulty centers among the 2" in note for [note] in notes)


# ----------------------------------------------------------------------------------------------------- worker processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["crash", "straggler"])
def test_with_workers_a_lost_or_slow_center_ends_within_the_deadline(tmp_path, small_centers, clean, kind):
    run = a_run(deadline_s=40.0)
    leader = faulty(run, tmp_path, small_centers, faults={"f": Fault(kind, ["CHUP"], factor=1e4)}, workers=2)
    [event] = rounds_of(leader)
    assert event["failed"] == {"CHUP": "no_reply"} and event["state_hash"] == clean[1][0]["state_hash"]
    assert event["seconds"]["train"] < 80


# ------------------------------------------------------------------------------------------------- from a command line


def test_faults_are_composed_with_any_curriculum():
    run = compose_run(
        ["curriculum=smoke", "+faults.a={kind: nan, centers: [CHUP], rounds: [2]}", "+faults.b={kind: alie}"]
    )
    assert run.faults == {"a": Fault("nan", ["CHUP"], rounds=[2]), "b": Fault("alie")} and not broken_rules(run)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+faults.a={kind: gremlin}", "it can be alie, count_inflation"),
        ("+faults.a={kind: nan, steps: [nowhere]}", "names steps ['nowhere']"),
        ("+faults.a={kind: nan, probability: 0}", "probability in (0, 1]"),
        ("+faults.a={kind: nan, rounds: [0]}", "rounds from 1"),
    ],
)
def test_a_fault_that_cannot_happen_is_refused(override, said):
    [problem] = broken_rules(compose_run(["curriculum=smoke", override]))
    assert said in problem


def test_an_unknown_option_of_a_fault_is_refused():
    with pytest.raises(UnknownName, match=r"Fault option 'centres'.*Did you mean 'centers'"):
        compose_run(["curriculum=smoke", "+faults.a={kind: nan, centres: [CHUP]}"])


def test_a_run_with_faults_is_refused_where_they_would_not_happen(tmp_path, small_centers):
    from flwr.app import Context, RecordDict

    from server.app import app
    from simulations.virtual.local_grid import LocalGrid

    context = Context(
        1, 1, {}, RecordDict(), {"overrides": "curriculum=smoke '+faults.a={kind: nan}'", "run-dir": str(tmp_path)}
    )
    with pytest.raises(ConfigError, match="over LocalGrid only"):
        app(LocalGrid(small_centers, workers=0), context)


def test_adapters_are_the_same_with_and_without_a_fault_that_never_happens(tmp_path, small_centers):
    never = {"f": Fault("nan", ["CHUP"], rounds=[9])}
    keys = [adapters(faulty(a_run(), tmp_path / str(i), small_centers, faults=f)) for i, f in enumerate(({}, never))]
    assert keys[0] == keys[1]
