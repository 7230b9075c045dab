"""One center's trouble costs that center's update, shows as a code in the ledger, and tells nobody anything else."""

import logging
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message

from client.center.center import Center
from client.center.models import backbone_of
from common.backbones.base import tensors_digest
from common.errors import DataError, RoundFailed
from common.protocol.arrays import pack_state, unpack_state
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.small import asked, code_of, federate, small_run, tampering, write_centers

CENTERS = ["CHUM", "CHUP", "MDA"]
SECRET = "/data/hospital/CHUP-003__CT.nii.gz"


def changed(reply, **records):
    for name, record in records.items():
        reply.content[name] = record
    return reply


def state_of(reply):
    return unpack_state(reply.content.array_records["arrays"])


def with_state(change):
    return lambda reply: changed(reply, arrays=pack_state(change(state_of(reply))))


def with_status(**status):
    return lambda reply: changed(reply, status=ConfigRecord({**reply.content.config_records["status"], **status}))


def without_count(reply):
    status = {k: v for k, v in reply.content.config_records["status"].items() if k != "cases"}
    return changed(reply, status=ConfigRecord(status))


BAD_UPDATES = {
    "NaN": (with_state(lambda s: {n: torch.full_like(t, torch.nan) for n, t in s.items()}), "not_finite"),
    "infinite": (with_state(lambda s: {n: t / 0 for n, t in s.items()}), "not_finite"),
    "another shape": (with_state(lambda s: {n: t[None] for n, t in s.items()}), "undeclared"),
    "another type": (with_state(lambda s: {n: t.double() for n, t in s.items()}), "undeclared"),
    "another name": (with_state(lambda s: {n + "x": t for n, t in s.items()}), "undeclared"),
    "the backbone": (with_state(lambda s: {**s, "backbone/weight": torch.zeros(3)}), "undeclared"),
    "half a part": (with_state(lambda s: dict(list(s.items())[1:])), "incomplete"),
    "no arrays": (with_state(lambda s: {}), "incomplete"),
    "no counts": (without_count, "incomplete"),
    "no sums": (lambda r: changed(r, sums=ArrayRecord()), "incomplete"),
    "a NaN loss": (
        lambda r: changed(r, sums=ArrayRecord({**r.content["sums"], "fit.loss": Array(np.array(np.nan))})),
        "not_finite",
    ),
    "words for numbers": (
        lambda r: changed(r, arrays=ArrayRecord({n: Array(np.array(["x"])) for n in r.content["arrays"]})),
        "malformed",
    ),
    "arrays for a status": (lambda r: changed(r, status=ArrayRecord()), "malformed"),
    "an extra record": (lambda r: changed(r, images=ArrayRecord({"ct": Array(np.zeros(3))})), "malformed"),
    "a duration that is none": (with_status(seconds=float("nan")), "malformed"),
    "another's name": (with_status(center="CHUM"), "wrong_center"),
    "an undeclared count": (with_status(patients=3), "malformed"),
    "nothing in time": (lambda reply: None, "no_reply"),
}


@pytest.fixture(scope="module")
def without_chup(tmp_path_factory, small_centers):
    """The state after one round of the two centers that behave."""
    run = small_run(centers=["CHUM", "MDA"], steps=["tumour_ct"], rounds=1)
    leader = federate(run, tmp_path_factory.mktemp("without"), small_centers)
    return leader.ledger.events("round_finished")[0]["state_hash"]


@pytest.fixture
def one_round():
    run = small_run(centers=CENTERS, steps=["tumour_ct"], rounds=1)
    run.steps["tumour_ct"].federation.quorum = 0.6
    run.steps["tumour_ct"].evaluate_at = ["CHUM"]
    return run


@pytest.mark.parametrize("trouble", BAD_UPDATES)
def test_a_bad_update_is_left_out_with_its_code(tmp_path, small_centers, one_round, without_chup, trouble):
    spoil, code = BAD_UPDATES[trouble]
    grid = tampering(lambda sent, r: spoil(r) if asked(sent) == ("train", 1) and code_of(r) == "CHUP" else r)
    leader = federate(one_round, tmp_path, small_centers, grid=grid)
    event = leader.ledger.events("round_finished")[0]
    assert event["failed"] == {"CHUP": code} and sorted(event["train"]) == ["CHUM", "MDA"]
    assert leader.bank.entry(leader.bank.head("tumour_ct")).centers == ["CHUM", "MDA"]  # not everyone who enrolled
    assert event["state_hash"] == without_chup and not event["void"]


def test_below_the_quorum_a_round_is_void_and_the_model_unchanged(tmp_path, small_centers, one_round):
    one_round.steps["tumour_ct"].rounds = 2
    grid = tampering(lambda sent, r: None if asked(sent) == ("train", 2) and code_of(r) != "CHUM" else r)
    leader = federate(one_round, tmp_path, small_centers, grid=grid)
    first, second = leader.ledger.events("round_finished")
    assert not first["void"] and second["void"]
    assert second["failed"] == {"CHUP": "no_reply", "MDA": "no_reply"}
    assert second["state_hash"] == first["state_hash"] == tensors_digest(leader.bank.get(leader.bank.head("tumour_ct")))


def test_a_round_without_any_usable_update_stops_and_is_repeated_later(tmp_path, small_centers, one_round):
    grid = tampering(lambda sent, r: None if asked(sent)[0] == "train" else r)
    with pytest.raises(RoundFailed, match="CHUM: no_reply, CHUP: no_reply, MDA: no_reply"):
        federate(one_round, tmp_path / "a", small_centers, grid=grid)
    resumed = federate(one_round, tmp_path / "a", small_centers)
    whole = federate(one_round, tmp_path / "b", small_centers)
    assert resumed.bank.head("tumour_ct") == whole.bank.head("tumour_ct")


@pytest.mark.parametrize("spoil", [BAD_UPDATES["a NaN loss"][0], BAD_UPDATES["nothing in time"][0]])
def test_a_center_without_usable_scores_has_a_row_without_a_value(tmp_path, small_centers, one_round, spoil):
    one_round.steps["tumour_ct"].evaluate_at = ["CHUM", "CHUP"]
    grid = tampering(lambda sent, r: spoil(r) if asked(sent) == ("evaluate", 0) and code_of(r) == "CHUP" else r)
    leader = federate(one_round, tmp_path, small_centers, grid=grid)
    rows = [r for r in leader.ledger.events("step_finished")[0]["scores"] if r["metric"] == "dsc_agg"]
    assert {r["center"]: (r["value"] is None, r["n"]) for r in rows} == {
        "CHUM": (False, 2),
        "CHUP": (True, None),
        "pooled": (True, 0),
    }
    [pooled] = [r for r in rows if r["center"] == "pooled"]
    assert pooled["missing"] == ["CHUP"], "a score over fewer centers must not look like one over all"


# -------------------------------------------------------------------------------------------------- exceptions stay


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError(f"cannot decode {SECRET}"), "internal"),
        (DataError(f"{SECRET} is truncated"), "data"),
        (MemoryError(SECRET), "internal"),
    ],
)
@pytest.mark.parametrize("method", ["describe", "train", "evaluate"])
def test_no_exception_leaves_a_center(tmp_path, small_centers, one_round, monkeypatch, caplog, error, code, method):
    whole = getattr(Center, method)

    def failing(self, order):
        if self.code == "CHUP":
            raise error
        return whole(self, order)

    monkeypatch.setattr(Center, method, failing)
    one_round.steps["tumour_ct"].evaluate_at = CENTERS
    grid = tampering()
    with caplog.at_level(logging.WARNING, logger="fedgraft.center"):
        leader = federate(one_round, tmp_path, small_centers, grid=grid)
    replies = [reply for _, reply in grid.seen if code_of(reply) == "CHUP"]
    failed = [r for r in replies if r.content.config_records["status"]["code"] == code]
    assert failed and SECRET in caplog.text and "center=CHUP" in caplog.text
    assert not any(secret in serialised(reply) for reply in replies for secret in (b"CHUP-0", b"hospital", b"nii"))
    assert "CHUP-0" not in leader.folder.ledger.read_text()


def test_a_reply_with_something_undeclared_does_not_leave(tmp_path, small_centers, one_round, monkeypatch, caplog):
    whole = Center.train

    def leaking(self, order):
        reply = whole(self, order)
        if self.code == "CHUP":
            reply.sums["risk.CHUP-001"] = np.array(0.3)
        return reply

    monkeypatch.setattr(Center, "train", leaking)
    grid = tampering()
    leader = federate(one_round, tmp_path, small_centers, grid=grid)
    assert leader.ledger.events("round_finished")[0]["failed"] == {"CHUP": "wire"}
    assert not any(b"CHUP-001" in serialised(reply) for _, reply in grid.seen)
    assert "risk.CHUP-001" in caplog.text


def serialised(message):
    from flwr.common.serde import message_to_proto

    return message_to_proto(message).SerializeToString()


# ----------------------------------------------------------------------------------------------------- refusals


def enrolled(run, folder, files):
    return federate(run, folder, files).ledger.events("step_started")[0]


@pytest.mark.parametrize(
    ("policy", "code"),
    [({"tasks": ["prognosis"]}, "declined.task"), ({"bases": ["0" * 64]}, "declined.base")],
)
def test_a_center_declines_by_its_own_policy_and_enrolment_says_why(
    tmp_path, small_centers, small_root, one_round, policy, code
):
    strict = write_centers(tmp_path / "centers", small_root, ["CHUP"], **policy)
    event = enrolled(one_round, tmp_path / "run", {**small_centers, **strict})
    assert event["centers"] == ["CHUM", "MDA"] and event["refused"] == {"CHUP": code}


def test_a_center_with_too_few_cases_declines_to_train(tmp_path, small_centers, small_root, one_round):
    strict = write_centers(tmp_path / "centers", small_root, ["CHUP"], minimum_cases=5)
    event = enrolled(one_round, tmp_path / "run", {**small_centers, **strict})
    assert event["refused"] == {"CHUP": "declined.cases"} and event["centers"] == ["CHUM", "MDA"]


def test_a_center_with_another_base_declines(tmp_path, small_centers, one_round, monkeypatch):
    def other(config, order):
        return backbone_of(config, replace(order, base="f" * 64) if config.code == "CHUP" else order)

    monkeypatch.setattr("client.center.center.backbone_of", other)
    assert enrolled(one_round, tmp_path, small_centers)["refused"] == {"CHUP": "declined.base_mismatch"}


def test_a_center_that_is_not_connected_is_named_and_the_others_go_on(tmp_path, small_centers, one_round):
    two = {code: small_centers[code] for code in ("CHUM", "MDA")}
    event = enrolled(one_round, tmp_path, two)
    assert event["refused"] == {"CHUP": "not_connected"} and event["centers"] == ["CHUM", "MDA"]


def test_when_everyone_declines_the_step_stops_with_the_reasons(tmp_path, small_root, one_round):
    strict = write_centers(tmp_path / "centers", small_root, CENTERS, tasks=["prognosis"])
    with pytest.raises(RoundFailed, match=r"No center can train step 'tumour_ct'.*declined\.task"):
        federate(one_round, tmp_path / "run", strict)


# ------------------------------------------------------------------------------------------------ worker processes


def exit_in_training(*task):
    os._exit(1)


def hang_in_training(*task):
    time.sleep(600)


class DeadlyGrid(LocalGrid):
    """CHUP's worker meets its end instead of training in round 1."""

    fate = staticmethod(exit_in_training)

    def _job(self, message: Message, timeout):
        if asked(message) == ("train", 1) and self._codes[message.metadata.dst_node_id] == "CHUP":
            return type(self).fate, ()
        return super()._job(message, timeout)


class HangingGrid(DeadlyGrid):
    """CHUP's worker never ends round 1; whoever waits behind it on the same worker has its own time."""

    fate = staticmethod(hang_in_training)

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        is_training = asked(messages[0]) == ("train", 1)
        return super().send_and_receive(messages, timeout=45.0 if is_training else timeout)


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "workers"), [(DeadlyGrid, 1), (DeadlyGrid, 3), (HangingGrid, 1)])
def test_a_center_that_dies_or_hangs_mid_round_costs_its_own_update_only(
    tmp_path, small_centers, one_round, without_chup, grid, workers
):
    event = federate(one_round, tmp_path, small_centers, grid=grid, workers=workers).ledger.events("round_finished")[0]
    assert event["failed"] == {"CHUP": "no_reply"} and event["state_hash"] == without_chup
