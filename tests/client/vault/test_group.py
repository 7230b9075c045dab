"""Group commit: a line is on disk before its reply is looked at, and a record that a power failure cut is completed."""

import json
from pathlib import Path

import pytest

from client.vault import group as module
from client.vault.group import Group, recover
from common.errors import LedgerError
from common.store.ledger import Ledger, append_line


@pytest.fixture
def grouped(tmp_path):
    group = Group(tmp_path / "sent.journal")
    records = [tmp_path / code / "sent.jsonl" for code in ("A", "B")]
    append_line(records[0], "reply", {"n": 0})
    for number in (1, 2):
        for record in records:
            group.append(record, "reply", {"n": number})
        group.commit()
    return group, records


def numbers(record):
    return [event["n"] for event in Ledger(record).events("reply")]


def test_lines_stand_in_their_records_at_once_and_one_flush_makes_them_durable(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(
        module.os, "fsync", lambda handle: flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
    )
    group = Group(tmp_path / "sent.journal")
    for code in "ABC":
        group.append(tmp_path / code / "sent.jsonl", "reply", {"n": 1})
        assert numbers(tmp_path / code / "sent.jsonl") == [1]
    assert flushed == []
    group.commit()
    group.commit()
    assert flushed == [str(tmp_path / "sent.journal")]


@pytest.mark.parametrize("kept", ["nothing", "before", "half a line", "one line", "all"])
def test_what_a_power_failure_took_from_a_record_is_in_the_journal(tmp_path, grouped, kept):
    _, (first, second) = grouped
    whole = first.read_bytes()
    lines = whole.splitlines(keepends=True)
    half, one = lines[0] + lines[1][:20], lines[0] + lines[1]
    left = {"nothing": b"", "before": lines[0], "half a line": half, "one line": one, "all": whole}[kept]
    first.write_bytes(left)
    second.unlink()
    missing = recover(tmp_path / "sent.journal")
    assert numbers(second) == [1, 2] and not (tmp_path / "sent.journal").exists()
    if kept == "nothing":  # its first line was flushed by itself: a record without it was moved aside
        assert first.read_bytes() == b"" and missing == 2
    else:
        assert first.read_bytes() == whole and Ledger(first).verify() == 3


def test_a_record_that_says_something_else_is_left_alone(tmp_path, grouped):
    _, (first, _) = grouped
    lines = first.read_bytes().splitlines(keepends=True)
    other = lines[0] + b"x" * 30
    first.write_bytes(other)
    assert recover(tmp_path / "sent.journal") == 0 and first.read_bytes() == other


def test_a_line_that_was_cut_was_never_committed_and_a_damaged_journal_is_named(tmp_path, grouped):
    journal = tmp_path / "sent.journal"
    journal.write_bytes(journal.read_bytes() + b'{"record": "')
    assert recover(journal) == 0
    journal.write_text("what\n")
    with pytest.raises(LedgerError, match=r"sent\.journal is damaged"):
        Group(journal)


def test_a_long_journal_is_begun_anew_once_the_records_are_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 600)
    group = Group(tmp_path / "sent.journal")
    for number in range(6):
        group.append(tmp_path / "A" / "sent.jsonl", "reply", {"n": number})
        group.commit()
        size = (tmp_path / "sent.journal").stat().st_size if (tmp_path / "sent.journal").exists() else 0
        assert size <= 600
    group.close()
    assert numbers(tmp_path / "A" / "sent.jsonl") == list(range(6)) and not (tmp_path / "sent.journal").exists()


def test_the_next_group_recovers_what_the_last_one_left(tmp_path, grouped):
    _, (_, second) = grouped
    second.write_bytes(second.read_bytes().splitlines(keepends=True)[0])
    group = Group(tmp_path / "sent.journal")
    group.append(second, "reply", {"n": 3})
    group.commit()
    assert numbers(second) == [1, 2, 3]
    [entry] = [json.loads(line) for line in (tmp_path / "sent.journal").read_text().splitlines()]
    assert entry["record"] == str(second)
