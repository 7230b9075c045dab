"""The ledger remembers in order, survives a torn last line and notices every change."""

import json

import pytest

from common.errors import LedgerError
from common.store.ledger import Ledger


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


def test_an_event_that_lost_only_its_line_end_is_repeated_not_glued_to_the_next(tmp_path):
    path = tmp_path / "ledger.jsonl"
    filled(path)
    path.write_bytes(path.read_bytes()[:-1])
    ledger = Ledger(path)
    ledger.append("round_finished", {"step": "a", "round": 2})
    assert [e["round"] for e in Ledger(path).events()] == [0, 1, 2]


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
