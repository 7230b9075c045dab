"""Compressed links, personal models and the profiles, end to end: fewer bytes, and what a center keeps stays there."""

import pytest
import torch

from common.backbones.base import tensors_digest
from common.config.federation import FEDERATIONS, Compression
from common.config.load import compose_run
from server.learning.checkpoints import load_checkpoint
from server.run.narration import Narrator
from tests.helpers.small import asked, code_of, federate, small_run, tampering

CENTERS = ["CHUM", "CHUP", "MDA"]


def a_run(rounds=3, *, kind="mean", step="tumour_ct", **options):
    run = small_run(centers=CENTERS, steps=[step], rounds=rounds)
    run.steps[step].federation = FEDERATIONS[kind](**options)
    run.steps[step].evaluate_at = ["CHUM"]
    return run


def rounds_of(leader):
    return leader.ledger.events("round_finished")


def test_compressed_messages_are_smaller_both_ways_and_a_held_state_is_not_sent_again(tmp_path, small_centers):
    sizes = {}
    for kind in ("none", "fp16", "int8", "topk"):
        run = a_run(2, compression=Compression(kind))
        second = rounds_of(federate(run, tmp_path / kind, small_centers))[1]["bytes"]["CHUM"]
        sizes[kind] = (second["up"], second["down"])
    assert sizes["none"][0] > 1.6 * sizes["fp16"][0] > 1.6 * 1.3 * sizes["int8"][0]
    assert sizes["topk"][0] < 0.5 * sizes["none"][0]
    assert sizes["fp16"][1] < 0.4 * sizes["none"][1], "half the numbers, and once a round instead of twice"


def test_a_center_that_was_away_gets_the_whole_state_and_goes_on(tmp_path, small_centers):
    away = tampering(lambda sent, r: None if asked(sent)[1] == 2 and code_of(r) == "CHUP" else r)
    run = a_run(3, compression=Compression("int8"), quorum=0.5)
    leader = federate(run, tmp_path, small_centers, grid=away)
    assert [sorted(e["failed"]) for e in rounds_of(leader)] == [[], ["CHUP"], []]
    third = rounds_of(leader)[2]["bytes"]
    assert third["CHUP"]["down"] > 2 * third["CHUM"]["down"]


def test_a_lost_vault_is_a_code_until_the_hospital_accepts_the_loss(tmp_path, small_root, monkeypatch):
    import shutil

    from client.vault.standing import give_up
    from tests.helpers.small import write_centers

    files = write_centers(tmp_path / "c", small_root, CENTERS)
    finished = Narrator.round_finished

    def losing(self, event, *, of):
        finished(self, event, of=of)
        if event["round"] == 1:
            shutil.rmtree(tmp_path / "c" / ".vault" / "CHUP")
        if event["round"] == 2:
            assert give_up(tmp_path / "c" / ".vault" / "CHUP")

    monkeypatch.setattr(Narrator, "round_finished", losing)
    leader = federate(a_run(3, compression=Compression("fp16"), quorum=0.5), tmp_path / "run", files)
    assert [e["failed"] for e in rounds_of(leader)] == [{}, {"CHUP": "vault"}, {}]
    assert [e["train"].get("CHUP", {}).get("afresh") for e in rounds_of(leader)] == [None, None, True]


def test_one_round_over_fp16_ends_where_one_without_compression_does(tmp_path, small_centers):
    ends = []
    for kind in ("none", "fp16"):
        leader = federate(a_run(1, compression=Compression(kind)), tmp_path / kind, small_centers)
        ends.append(load_checkpoint(leader.folder, "tumour_ct", rounds_of(leader)[-1]))
    start = ends[0]
    worst = max(float((a - ends[1][n]).abs().max()) for n, a in start.items())
    assert 0 < worst < 1e-5  # of steps of 2e-3; later rounds start elsewhere, and AdamW takes whole steps


def test_seeded_factors_do_not_travel(tmp_path, small_centers):
    """FFA's A is made from the seed at every center; the model is the one that a whole message makes."""
    run = small_run(centers=CENTERS, steps=["relapse"], rounds=2)
    run.steps["relapse"].adapter.parts["within"].rule = "ffa"
    grid = tampering()
    leader = federate(run, tmp_path, small_centers, grid=grid)
    sent = [m.content for m, _ in grid.seen if asked(m)[0] == "train"]
    names = {name for content in sent for name in content.array_records["arrays"]}
    assert not any(name.endswith("lora_A.weight") for name in names)
    assert any(name.endswith("lora_B.weight") for name in names)
    state = load_checkpoint(leader.folder, "relapse", rounds_of(leader)[-1])
    assert any(name.endswith("lora_A.weight") for name in state) and rounds_of(leader)[-1]["failed"] == {}


def test_local_tensors_never_travel_and_personal_models_are_scored(tmp_path, small_centers):
    grid = tampering()
    federate(a_run(2, local=["decoder/*norm*"]), tmp_path / "a", small_centers, grid=grid)
    back = {n for m, r in grid.seen if asked(m)[0] == "train" for n in r.content.array_records["arrays"]}
    assert back and not any("norm" in name for name in back)
    common = federate(a_run(2), tmp_path / "b", small_centers)
    own = federate(a_run(2, personal=0.0), tmp_path / "c", small_centers)
    assert [e["state_hash"] for e in rounds_of(own)] == [e["state_hash"] for e in rounds_of(common)]
    assert [e["validation"]["loss"] for e in rounds_of(own)] != [e["validation"]["loss"] for e in rounds_of(common)]


@pytest.mark.parametrize("rule", ["fedit", "rolora", "fedsvd", "fedsb", "flora", "fedex", "flexlora"])
def test_every_lora_rule_runs_its_rounds(tmp_path, small_centers, rule):
    run = small_run(centers=CENTERS, steps=["relapse"], rounds=2)
    run.steps["relapse"].adapter.parts["within"].rule = rule
    leader = federate(run, tmp_path, small_centers)
    hashes = [e["state_hash"] for e in rounds_of(leader)]
    assert len({*hashes, tensors_digest(leader.bank.get(leader.bank.head("relapse")))}) >= 2
    assert [(e["failed"], e["void"]) for e in rounds_of(leader)] == [({}, False)] * 2


@pytest.mark.parametrize("profile", ["trusted_fast", "hostile", "private"])
def test_profiles_run_end_to_end(tmp_path, small_centers, profile):
    composed = compose_run(["curriculum=quickstart", f"federation@steps.tumour_ct.federation={profile}"])
    run = small_run(centers=[*CENTERS, "HMR"], steps=["tumour_ct"], rounds=2)
    run.steps["tumour_ct"].federation = composed.steps["tumour_ct"].federation
    if profile == "hostile":
        run.steps["tumour_ct"].federation.faulty = 1  # four centers are too few for two
    leader = federate(run, tmp_path, small_centers)
    assert all(not e["void"] and not e["failed"] for e in rounds_of(leader)) and leader.ledger.finished("tumour_ct")
    state = load_checkpoint(leader.folder, "tumour_ct", rounds_of(leader)[-1])
    assert all(torch.isfinite(t).all() for t in state.values())
