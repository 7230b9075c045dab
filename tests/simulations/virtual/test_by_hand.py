"""Handed over in one process: the same adapters as by messages, the same records, and deaths that change nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.app import Verbs
from client.center import settled as vaulted
from client.vault import group as grouping
from client.vault.group import Group
from client.vault.outbox import FILE
from common.protocol.handed import HandedReply
from common.protocol.messages import Reply
from common.store.ledger import Ledger
from server.centers.federation import Federation
from server.learning import rounds
from server.run.folder import RunFolder
from simulations.virtual import local_grid
from simulations.virtual.local_grid import LocalGrid
from tests.e2e.test_resume import Killed, dies
from tests.helpers.small import adapters, federate, small_run, write_centers
from tests.simulations.virtual.test_local_grid import describing  # noqa: F401

VOLATILE = ("time", "previous", "hash", "digest", "bytes")  # a reply says how many seconds it took


def by_hand(folder):
    return lambda files, workers: LocalGrid(files, workers=0, by_hand=True, journal=folder / "sent.journal")


def a_run():
    run = small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct", "tumour_ctpet"])
    run.steps["tumour_ctpet"].rounds = 1
    return run


def records(folder):
    found = {path.parent.name: Ledger(path).events() for path in sorted(folder.glob(f".vault/*/{FILE}"))}
    return {code: [{k: v for k, v in e.items() if k not in VOLATILE} for e in events] for code, events in found.items()}


@pytest.fixture(scope="module")
def as_messages(tmp_path_factory, small_root):
    place = tmp_path_factory.mktemp("messages")
    files = write_centers(place / "centers", small_root, ["CHUM", "CHUP"])
    return federate(a_run(), place / "run", files), records(place / "centers")


@pytest.fixture
def files(tmp_path, small_root):
    return write_centers(tmp_path / "centers", small_root, ["CHUM", "CHUP"])


def test_both_ways_end_with_the_same_adapters_scores_bytes_and_records(tmp_path, files, as_messages):
    leader, left = as_messages
    handed = federate(a_run(), tmp_path / "run", files, grid=by_hand(tmp_path))
    assert adapters(handed) == adapters(leader)
    for kind in ("start_validated", "round_finished", "step_finished"):
        for own, other in zip(handed.ledger.events(kind), leader.ledger.events(kind), strict=True):
            for field in ("scores", "state_hash", "validation", "failed", "quarantined", "aggregation"):
                assert own.get(field) == other.get(field), (kind, field)
    assert records(tmp_path / "centers") == left
    downs = [[e["bytes"][c]["down"] for c in ("CHUM", "CHUP")] for e in handed.ledger.events("round_finished")]
    assert downs == [[e["bytes"][c]["down"] for c in ("CHUM", "CHUP")] for e in leader.ledger.events("round_finished")]


@pytest.mark.slow
def test_workers_end_with_the_same_adapters(tmp_path, files, as_messages):
    assert adapters(federate(a_run(), tmp_path / "run", files, workers=2)) == adapters(as_messages[0])


# between any two of: vault write, record, flush of the records, checkpoint, ledger line, next order
DEATHS = {
    "before the vault is written": (vaulted, "note_trained", 2, True),
    "between vault and record": (vaulted, "note_trained", 2, False),
    "between one center's record and the next center's": (Group, "append", 5, False),
    "between the records and their flush": (Group, "commit", 3, True),
    "between flush and aggregate": (Group, "commit", 3, False),
    "between checkpoint and ledger": (rounds, "write_tensors", 1, False),
    "between ledger and next order": (rounds, "keep_best_and_last", 1, False),
    "before the next order is answered": (LocalGrid, "send_and_receive", 5, True),
}


@pytest.mark.parametrize("death", DEATHS)
def test_killed_between_any_two_writes_the_run_ends_with_the_same_adapters(
    tmp_path, files, as_messages, monkeypatch, death
):
    owner, name, at, before = DEATHS[death]
    monkeypatch.setattr(Group, "close", lambda self: None)  # a process that is killed closes nothing
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies(getattr(owner, name), at=at, before=before))
        with pytest.raises(Killed):
            federate(a_run(), tmp_path / "run", files, grid=by_hand(tmp_path))
    used = Ledger(RunFolder(tmp_path / "run").ledger).events("round_finished")
    _power_fails(tmp_path)
    resumed = federate(a_run(), tmp_path / "run", files, grid=by_hand(tmp_path))
    assert adapters(resumed) == adapters(as_messages[0])
    for code in ("CHUM", "CHUP"):
        record = tmp_path / "centers" / ".vault" / code / FILE
        trained = [(e["step"], e["round"]) for e in Ledger(record).events("reply") if e["action"] == "train"]
        assert {(e["step"], e["round"]) for e in used} <= set(trained), "what the server used stands in the record"
        assert Ledger(record).verify() >= 6


def _power_fails(folder):
    """Nothing of the records is left but what the journal names: none of their own lines was ever flushed."""
    journal = folder / "sent.journal"
    firsts = {}
    for line in journal.read_text().splitlines() if journal.exists() else []:
        entry = json.loads(line)
        firsts.setdefault(entry["record"], entry["at"])
    for record, at in firsts.items():
        with Path(record).open("r+b") as file:
            file.truncate(at)


def test_a_center_that_writes_into_the_common_order_is_found(tmp_path, files):
    def train(center, order):
        next(iter(order.state.values())).add_(1.0)
        return Reply(center.code)

    grid = LocalGrid(files, workers=0, by_hand=True, verbs=replace(Verbs(), train=train))
    with pytest.raises(RuntimeError, match="wrote into the order"):
        federate(a_run(), tmp_path / "run", files, grid=lambda *_, **__: grid)


def test_nothing_is_answered_that_cannot_be_recorded(tmp_path, files, monkeypatch, describing):  # noqa: F811
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(grouping.Group, "commit", full)
    grid = LocalGrid(files, workers=0, by_hand=True, journal=tmp_path / "sent.journal")
    found = Federation(grid).discover(describing)
    grid.close()
    assert {code: reply.code for code, reply in found.replies.items()} == dict.fromkeys(files, "unrecorded")
    assert not any(reply.counts for reply in found.replies.values())


def test_a_late_reply_counts_nowhere_and_is_recorded(tmp_path, files, monkeypatch, describing):  # noqa: F811
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(local_grid.time, "monotonic", lambda: next(clock))
    grid = LocalGrid(files, workers=0, by_hand=True, journal=tmp_path / "sent.journal")
    describing.step.federation.deadline_s = 50.0
    exchange = Federation(grid, patience_s=1.0)._send({"100": 100}, describing, "query.describe", 50.0)
    grid.close()
    assert exchange.replies["100"].code == "no_reply"
    assert len(records(tmp_path / "centers")["CHUM"]) == 1


def test_a_reply_is_no_alias_of_the_order(files, describing):  # noqa: F811
    reply = HandedReply(Reply("CHUM", state={"b": torch.ones(2, requires_grad=True), "a": torch.zeros(2)}))
    assert list(reply.reply.state) == ["a", "b"] and not reply.reply.state["b"].requires_grad
