"""The record of what leaves: every reply of a real federation is in it, with its bytes, before it leaves."""

import hashlib
import json

import pytest

from client.vault.outbox import FILE, NotRecorded, record_reply
from common.errors import LedgerError
from common.protocol.wire import content_bytes
from common.store.ledger import Ledger
from tests.helpers.small import federate, forget, small_run, tampering, write_centers


@pytest.fixture
def run():
    forget()
    return small_run(centers=["CHUM", "CHUP"], rounds=1, steps=["tumour_ct"])


def content_digest(content):
    """SHA-256 over every name and value of a message's content, in name order."""
    digest = hashlib.sha256()
    for group, record in sorted(content.array_records.items()):
        for name, array in sorted(record.items()):
            digest.update(f"{group}|{name}|{array.dtype}|{tuple(array.shape)}|".encode() + array.data)
    for group, config in sorted(content.config_records.items()):
        digest.update("".join(f"{group}|{name}|{value!r}|" for name, value in sorted(config.items())).encode())
    return digest.hexdigest()


def records(folder):
    return {path.parent.name: Ledger(path).events("reply") for path in sorted(folder.glob(f".vault/*/{FILE}"))}


def test_every_reply_is_recorded_with_its_bytes_and_its_digest(tmp_path, small_root, run):
    files = write_centers(tmp_path / "centers", small_root, ["CHUM", "CHUP"])
    grid = tampering()
    federate(run, tmp_path / "run", files, grid=grid)
    left = records(tmp_path / "centers")
    replies = {code: [] for code in files}
    for _, reply in grid.seen:
        replies[reply.content.config_records["status"]["center"]].append(reply)
    for code, sent in replies.items():
        assert [e["digest"] for e in left[code]] == [content_digest(r.content) for r in sent]
        assert [e["bytes"] for e in left[code]] == [content_bytes(r.content) for r in sent]
    trained = [e for e in left["CHUM"] if e["action"] == "train"]
    assert [(e["step"], e["round"], e["code"], e["parts"]) for e in trained] == [("tumour_ct", 1, "ok", ["decoder"])]


def test_the_record_names_no_patient_and_holds_no_value(tmp_path, small_root, run):
    files = write_centers(tmp_path / "centers", small_root, ["CHUM", "CHUP"])
    federate(run, tmp_path / "run", files)
    text = "".join(path.read_text() for path in tmp_path.glob(f"centers/.vault/*/{FILE}"))
    assert "CHUM-0" not in text and "fit.loss" in text
    for line in text.splitlines():
        event = json.loads(line)
        assert all(isinstance(value, int) for value in event["counts"].values())
        assert not [v for v in event.values() if isinstance(v, float)]


def test_what_cannot_be_recorded_does_not_leave(tmp_path, small_root, run):
    files = write_centers(tmp_path / "centers", small_root, ["CHUM", "CHUP"])
    vault = tmp_path / "centers" / ".vault" / "CHUM"
    vault.mkdir(parents=True)
    (vault / FILE).write_text('{"kind": "reply"}\n')
    grid = tampering()
    leader = federate(run, tmp_path / "run", files, grid=grid)
    codes = [
        (s["center"], s["code"], set(s) - {"center", "code", "seconds"}, len(reply.content["arrays"]))
        for _, reply in grid.seen
        for s in [dict(reply.content.config_records["status"])]
        if s["center"] == "CHUM"
    ]
    assert {code[:2] for code in codes} == {("CHUM", "unrecorded")} and all(n == 0 for *_, n in codes)
    assert leader.ledger.events("step_finished")[0]["evaluated_at"] == ["CHUP"]


def test_a_changed_record_is_noticed(tmp_path):
    order = small_order()
    for number in (1, 2):
        record_reply(tmp_path, {"bytes": number}, action="train", order=order)
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('"bytes":1', '"bytes":0'))
    with pytest.raises(LedgerError, match="line 1 breaks the hash chain"):
        Ledger(path)
    record_reply(tmp_path, {"bytes": 3}, action="train", order=order)  # the chain is for whoever audits it
    with pytest.raises(LedgerError, match="line 1 breaks the hash chain"):
        Ledger(path)
    path.write_text(path.read_text().replace('"bytes":3', '"bytes":4'))
    with pytest.raises(NotRecorded, match="nothing was sent"):
        record_reply(tmp_path, {"bytes": 3}, action="train", order=order)


def small_order():
    from common.config.run import BackboneSpec, Split
    from common.protocol.messages import Order

    return Order(small_run(steps=["tumour_ct"]).steps["tumour_ct"], 1, 1, BackboneSpec(), "base", Split())
