"""The ledger remembers in order, survives a torn last line and notices every change."""

import json
import time

import pytest

from common.errors import LedgerError
from common.store.ledger import Ledger, append_line


def filled(path, count=3):
    ledger = Ledger(path)
    for number in range(count):
        ledger.append("round_finished", {"step": "a", "round": number})
    return ledger


def test_events_come_back_in_order_from_a_new_process(tmp_path):
    filled(tmp_path / "ledger.jsonl")
    assert [e["round"] for e in Ledger(tmp_path / "ledger.jsonl").events("round_finished", step="a")] == [0, 1, 2]


def test_a_step_is_finished_only_after_its_event(tmp_path):
    ledger = filled(tmp_path / "ledger.jsonl")
    assert not ledger.finished("a")
    ledger.append("step_finished", {"step": "a"})
    assert ledger.finished("a") and not ledger.finished("b")


def test_a_torn_last_line_is_dropped_and_the_chain_goes_on(tmp_path):
    path = tmp_path / "ledger.jsonl"
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "round_fin')
    ledger = Ledger(path)
    assert len(ledger.events()) == 3
    ledger.append("x", {})
    assert Ledger(path).verify() == 4 and path.read_bytes().startswith(whole)


def test_reading_never_writes_so_that_a_running_ledger_can_be_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    filled(path)
    torn = path.read_bytes() + b'{"kind": "round_fin'
    path.write_bytes(torn)
    assert Ledger(path).verify() == 3 and path.read_bytes() == torn


def test_an_event_that_lost_only_its_line_end_is_kept_and_not_glued_to_the_next(tmp_path):
    path = tmp_path / "ledger.jsonl"
    filled(path)
    path.write_bytes(path.read_bytes()[:-1])
    ledger = Ledger(path)
    ledger.append("round_finished", {"step": "a", "round": 3})
    assert [e["round"] for e in Ledger(path).events()] == [0, 1, 2, 3]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_line_is_found(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    filled(path)
    lines = path.read_text().splitlines()
    event = json.loads(lines[line])
    event["round"] = 99
    lines[line] = json.dumps(event)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LedgerError, match=f"line {line + 1} breaks the hash chain"):
        Ledger(path)


def test_a_removed_line_is_found(tmp_path):
    path = tmp_path / "ledger.jsonl"
    filled(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[2]]) + "\n")
    with pytest.raises(LedgerError, match="breaks the hash chain"):
        Ledger(path)


def line(path, number):
    return append_line(path, "reply", {"round": number, "bytes": 7})


def test_a_record_of_any_length_is_continued_from_its_last_line_alone(tmp_path):
    path = tmp_path / "sent.jsonl"
    for number in range(3):
        line(path, number)
    assert [event["round"] for event in Ledger(path).events()] == [0, 1, 2]
    last = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(b"what nobody reads here\n" * 2_000_000 + last)
    began = time.perf_counter()
    for number in range(3, 13):
        line(path, number)
    assert (time.perf_counter() - began) / 10 < 0.1, "seconds a line, 46 MB behind it"
    assert len(path.read_bytes()[-20_000:].split(b"reply")) == 12


@pytest.mark.parametrize("tail", [b"", b'{"format":1,"kind":"re', b"\0" * 9000], ids=["whole", "cut", "zeros"])
def test_a_record_goes_on_after_a_line_that_was_cut(tmp_path, tail):
    path = tmp_path / "sent.jsonl"
    line(path, 0), line(path, 1)
    path.write_bytes(path.read_bytes() + tail)
    line(path, 2)
    assert [event["round"] for event in Ledger(path).events()] == [0, 1, 2]


def test_a_record_without_its_last_line_end_and_an_only_line_that_was_cut(tmp_path):
    path = tmp_path / "sent.jsonl"
    line(path, 0), line(path, 1)
    path.write_bytes(path.read_bytes()[:-1])
    line(path, 2)
    assert [event["round"] for event in Ledger(path).events()] == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:30])
    line(path, 5)
    assert [event["round"] for event in Ledger(path).events()] == [5]


def test_a_record_whose_last_line_was_changed_is_not_continued(tmp_path):
    path = tmp_path / "sent.jsonl"
    line(path, 0)
    path.write_bytes(path.read_bytes().replace(b'"bytes":7', b'"bytes":8'))
    with pytest.raises(LedgerError, match="changed after it was written"):
        line(path, 1)


def test_a_ledger_edited_on_windows_reads_the_same(tmp_path):
    path = tmp_path / "ledger.jsonl"
    line(path, 0)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    line(path, 1)
    assert [event["round"] for event in Ledger(path).events()] == [0, 1]
