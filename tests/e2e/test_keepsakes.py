"""What a step keeps at its end: asked once, stored beside the adapter, brought to the next step of the lineage."""

from __future__ import annotations

import pytest
import torch

from common.config.adapter import LoraPart
from common.config.methods.continual import (
    EwcMethod,
    InfLoraMethod,
    LwfMethod,
    OnlineEwcMethod,
    ProjectionMethod,
    SequentialMethod,
)
from common.config.rules import broken_rules
from common.errors import RoundFailed
from common.protocol.keepsakes import FISHER, TASKS
from server import curriculum
from server.methods import asking, opening
from server.methods.base import KeepsakeMissing
from tests.helpers.small import adapters, asked, federate, small_run, tampering

CENTERS = ["CHUM", "CHUP"]


def a_run(method=None, *, first=None):
    """One task, at CHUM and then at CHUP, in one lineage."""
    method = method or EwcMethod(strength=1e4)
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    one, two = run.steps.values()
    two.task, two.modalities, two.adapter, two.view = one.task, ["CT"], one.adapter, one.view
    two.modes, two.train_parts, two.starts_from, two.training = [], ["*"], None, one.training
    one.training.epochs = 3
    one.writes = two.writes = "tumor"
    one.methods, two.methods = [first or method], [method]
    two.centers = ["CHUP"]
    return run


@pytest.fixture(scope="module")
def leader(small_centers, tmp_path_factory):
    run = a_run()
    assert broken_rules(run) == []
    return federate(run, tmp_path_factory.mktemp("ewc") / "run", small_centers)


def test_each_step_stores_what_it_keeps_beside_its_adapter(leader):
    stored = leader.ledger.events("keepsakes_stored")
    assert [event["step"] for event in stored] == ["tumour_ct", "tumour_ctpet"]
    for number, (event, key) in enumerate(zip(stored, adapters(leader).values(), strict=True), start=1):
        kept = leader.bank.keepsake(key, "ewc")
        assert event["key"] == key and list(event["kept"]) == ["ewc"]
        assert kept[TASKS] == number
        assert all(bool((t >= 0).all()) for name, t in kept.items() if name.startswith(FISHER))
        assert sum(float(t.sum()) for name, t in kept.items() if name.startswith(FISHER)) > 0
    counts = leader.ledger.events("step_started", step="tumour_ct")[0]["counts"]
    assert stored[0]["centers"] == CENTERS and stored[1]["centers"] == ["CHUP"]
    assert stored[0]["cases"] == sum(counts[center]["train"] for center in CENTERS)


def test_the_fisher_over_centers_is_that_of_all_their_patients(leader, small_centers):
    """Each patient counts once, whoever holds it: the mean is that over the pooled patients."""
    kept = leader.bank.keepsake(adapters(leader)["tumour_ct"], "ewc")
    key = adapters(leader)["tumour_ct"]
    step = leader.run.steps["tumour_ct"]
    from client.center.center import Center
    from common.protocol.keepsakes import KEEPSAKES
    from server.methods.base import placed

    order = leader.order(step)
    order.state, order.subset, order.round = leader.bank.get(key), KEEPSAKES, 1
    told = [Center.open(small_centers[center]).sums(order) for center in CENTERS]
    assert all(reply.sums for reply in told)
    total = sum(float(reply.sums["fit.cases"]) for reply in told)
    for name, place in placed(step, order.state, base=order.base).items():
        if FISHER + name in told[0].sums:
            pooled = sum(torch.from_numpy(reply.sums[FISHER + name]) for reply in told) / total
            assert torch.allclose(kept[FISHER + place], pooled, rtol=1e-9, atol=0)


def test_the_second_step_differs_from_sequential_and_with_strength_0_it_does_not(leader, small_centers, tmp_path):
    ends = {"ewc": leader}
    for name, method in {"none": SequentialMethod(), "zero": EwcMethod(strength=0.0)}.items():
        ends[name] = federate(a_run(method), tmp_path / name, small_centers)
    rounds = {name: end.ledger.events("round_finished", step="tumour_ctpet")[0] for name, end in ends.items()}
    hashes = {name: event["state_hash"] for name, event in rounds.items()}
    assert hashes["zero"] == hashes["none"] != hashes["ewc"]
    firsts = {end.bank.entry(adapters(end)["tumour_ct"]).state_hash for end in ends.values()}
    assert len(firsts) == 1, "the first step of a lineage has nothing to keep to"


class Killed(BaseException):
    """The process ends here."""


def silent(sent, reply):
    """Nobody answers a question for sums."""
    return None if asked(sent)[0] == "query.sums" else reply


def test_unanswered_and_then_killed_at_a_steps_end_a_run_ends_with_the_same_keys_and_keepsakes(
    leader, small_centers, tmp_path, monkeypatch
):
    """Below the quorum, before it is asked, before it is stored, after it is stored: the same command goes on."""
    with pytest.raises(RoundFailed, match=r"is trained, but 0 of at least .*CHUM: no_reply"):
        federate(a_run(), tmp_path / "run", small_centers, grid=tampering(silent))

    def die(*args, **kwargs):
        raise Killed

    for place, name in ((curriculum, "keep"), (asking, "ends_of"), (curriculum, "_step_finished")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, die)
            with pytest.raises(Killed):
                federate(a_run(), tmp_path / "run", small_centers)
    again = federate(a_run(), tmp_path / "run", small_centers)
    assert adapters(again) == adapters(leader)
    kept = [{e["step"]: e["kept"] for e in end.ledger.events("keepsakes_stored")} for end in (leader, again)]
    assert kept[0] == kept[1] and len(again.ledger.events("keepsakes_stored")) == 2


def test_a_step_whose_start_kept_nothing_is_refused_in_a_sentence(small_centers, tmp_path):
    run = a_run(OnlineEwcMethod(), first=SequentialMethod())
    assert any("starts from 'tumour_ct', which does not list it" in said for said in broken_rules(run))
    with pytest.raises(KeepsakeMissing, match=r"lists online_ewc, and the adapter that it starts from .* kept nothing"):
        federate(run, tmp_path / "run", small_centers)


def test_a_fisher_that_no_patients_make_is_left_out_and_counts_as_a_strike(small_centers, tmp_path):
    def lie(sent, reply):
        if asked(sent)[0] == "query.sums" and reply.content.config_records["status"]["center"] == "CHUM":
            from flwr.app import Array

            sums = reply.content.array_records["sums"]
            name = next(name for name in sums if name.startswith(FISHER))
            sums[name] = Array(-sums[name].numpy() - 1)
        return reply

    run = a_run(EwcMethod(), first=EwcMethod())
    for step in run.steps.values():
        step.federation.quorum = 0.5
    told = federate(run, tmp_path / "run", small_centers, grid=tampering(lie))
    event = told.ledger.events("keepsakes_stored", step="tumour_ct")[0]
    assert event["failed"] == {"CHUM": "impossible"} and event["centers"] == ["CHUP"]
    assert [e["code"] for e in told.ledger.events("reply_rejected")] == ["impossible"]


def test_two_methods_that_keep_and_teach_act_together(small_centers, tmp_path):
    run = a_run()
    run.steps["tumour_ctpet"].methods.append(LwfMethod(strength=2.0))
    both = federate(run, tmp_path / "run", small_centers)
    assert all(not event["failed"] for event in both.ledger.events("round_finished"))


def of_projection(folder, files, energy, **options):
    """With LoRA inside the encoder, both factors in each round."""
    run = a_run(ProjectionMethod(energy=energy))
    for step in run.steps.values():
        step.adapter.parts = {"within": LoraPart(sites=["image_attention"], rank=4, rule="fedit"), **step.adapter.parts}
    assert broken_rules(run) == []
    return federate(run, folder, files, **options)


@pytest.fixture(scope="module")
def off(small_centers, tmp_path_factory):
    return of_projection(tmp_path_factory.mktemp("projection") / "run", small_centers, 0.9)


def test_the_second_steps_way_is_orthogonal_to_what_the_first_one_saw(off):
    from common.protocol.keepsakes import BASIS
    from server.methods.base import placed

    first, second = adapters(off).values()
    kept, step = off.bank.keepsake(first, "projection"), off.run.steps["tumour_ctpet"]
    before, after = off.bank.get(first), off.bank.get(second)
    held = {
        n: kept[BASIS + place]
        for n, place in placed(step, after, base=off.bank.entry(second).base).items()
        if BASIS + place in kept
    }
    assert any(name.endswith("lora_A.weight") for name in held)
    for name, basis in held.items():
        way = (after[name] - before[name]).double()
        assert (way @ basis).abs().max() < 1e-6
    grown = off.bank.keepsake(second, "projection")
    assert all(grown[name].shape[1] >= kept[name].shape[1] for name in kept if name.startswith(BASIS))


def test_killed_in_its_second_step_a_projected_run_ends_with_the_same_keys(off, small_centers, tmp_path, monkeypatch):
    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(asking, "ends_of", die)
        with pytest.raises(Killed):
            of_projection(tmp_path / "run", small_centers, 0.9)
    assert adapters(of_projection(tmp_path / "run", small_centers, 0.9)) == adapters(off)


def test_at_energy_0_projection_is_sequential_to_the_bit(small_centers, tmp_path):
    zero = of_projection(tmp_path / "zero", small_centers, 0.0)
    run = zero.run
    for step in run.steps.values():
        step.methods = [SequentialMethod()]
    plain = federate(run, tmp_path / "plain", small_centers)
    hashes = [[end.bank.entry(key).state_hash for key in adapters(end).values()] for end in (zero, plain)]
    assert hashes[0] == hashes[1]


def of_inflora(folder, files, method, **options):
    """With LoRA inside the encoder whose factor A rests, four rows for two steps."""
    run = a_run(method)
    for step in run.steps.values():
        step.training.epochs = 1
        step.adapter.parts = {"within": LoraPart(sites=["image_attention"], rank=4, rule="ffa"), **step.adapter.parts}
    assert broken_rules(run) == []
    return federate(run, folder, files, **options)


@pytest.fixture(scope="module")
def rows(small_centers, tmp_path_factory):
    return of_inflora(tmp_path_factory.mktemp("inflora") / "run", small_centers, InfLoraMethod(rank=2, energy=0.9))


def test_a_steps_rows_read_nothing_that_the_first_one_saw_and_earlier_ones_rest_to_the_bit(rows):
    from common.protocol.keepsakes import BASIS
    from server.methods.base import placed

    first, second = adapters(rows).values()
    before, after, kept = rows.bank.get(first), rows.bank.get(second), rows.bank.keepsake(first, "inflora")
    places = placed(rows.run.steps["tumour_ctpet"], after, base=rows.bank.entry(second).base)
    factors = [name for name in after if name.endswith("lora_A.weight")]
    assert factors and kept["used"] == 2 and rows.bank.keepsake(second, "inflora")["used"] == 4
    for name in factors:
        writes = name.replace("lora_A", "lora_B")
        assert (after[name][2:].double() @ kept[BASIS + places[name]]).abs().max() < 1e-6
        assert torch.equal(after[name][:2], before[name][:2]) and torch.equal(
            after[writes][:, :2], before[writes][:, :2]
        )
        assert not before[writes][:, 2:].any() and after[writes][:, 2:].any() and before[writes][:, :2].any()


def test_a_steps_start_is_made_of_its_own_centers_once_and_told(rows):
    events = rows.ledger.events("start_made")
    assert [(e["step"], e["centers"], e["kinds"]) for e in events] == [
        ("tumour_ct", CENTERS, ["inflora"]), ("tumour_ctpet", ["CHUP"], ["inflora"]),
    ]  # fmt: skip
    starts = [rows.ledger.events("step_started", step=e["step"])[0]["start_hash"] for e in events]
    assert starts == [e["state_hash"] for e in events]


def test_killed_as_its_start_is_made_and_in_its_first_round_a_run_ends_with_the_same_keys(
    rows, small_centers, tmp_path, monkeypatch
):
    def die(*args, **kwargs):
        raise Killed

    method = InfLoraMethod(rank=2, energy=0.9)
    for place, name in ((opening, "write_tensors"), (curriculum, "run_rounds")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, die)
            with pytest.raises(Killed):
                of_inflora(tmp_path / "run", small_centers, method)
    again = of_inflora(tmp_path / "run", small_centers, method)
    assert adapters(again) == adapters(rows)
    assert len(again.ledger.events("start_made")) == 2


def test_below_the_quorum_a_step_does_not_begin(small_centers, tmp_path):
    with pytest.raises(RoundFailed, match=r"'tumour_ct' cannot begin yet, but 0 of at least .* Nothing is lost"):
        of_inflora(tmp_path / "run", small_centers, InfLoraMethod(), grid=tampering(silent))
