"""Retention: what is old goes from its own places, and what proves something never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client.__main__ import main
from client.center.config import read_config
from client.retention.declared import Retention
from client.retention.tidying import CACHE, LOG, STEP, SUM, old_things, remove
from client.vault.lock import only_one
from common.errors import ConfigError
from tests.helpers.small import write_centers

DAY = 86_400.0
NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC
KEPT = (
    "privacy.jsonl", "privacy.end", "privacy-secret.json", "released.jsonl", "released.end", "sent.jsonl", "sent.end",
    "cohort.jsonl", "cohort.end", "exact/questions.json", "masking/answered.json", "runs/ab.json",
)  # fmt: skip


def write(path: Path, *, days_ago: float, text: str = "x" * 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - days_ago * DAY,) * 2)
    return path


@pytest.fixture
def places(tmp_path):
    """A hospital's folders: everything is 100 days old but the shelf of one step and the end of one log."""
    cache, vault, home = tmp_path / "cache", tmp_path / "vault" / "CHUM", tmp_path / ".node-CHUM"
    for name in KEPT:
        write(vault / name, days_ago=100)
    write(vault / "steps" / "old-1" / "scaffold" / "round-0003.safetensors", days_ago=100)
    write(vault / "steps" / "going-on-2" / "memory.json", days_ago=100)
    write(vault / "steps" / "going-on-2" / "reference" / "a.safetensors", days_ago=3)
    write(vault / "masking" / "open-ab.json", days_ago=100)
    write(cache / "ab" / "abc.safetensors", days_ago=100)
    write(cache / "ab" / "new.safetensors", days_ago=1)
    write(cache / "notes.txt", days_ago=100)  # not the cache's own
    write(home / "node.log.1", days_ago=100)
    lines = [
        "2026-10-01 00:00:00,1 INFO old",
        "  a traceback of the old one",
        "2027-01-14 00:00:00,1 INFO new",
        "  more",
    ]
    write(home / "center.log", days_ago=0, text="\n".join(lines) + "\n")
    write(home / "executor.secret", days_ago=100)
    return {"cache": cache, "vault": vault, "home": home}


def found(places, **days):
    listed = old_things(Retention(**days), **places, now=NOW)
    return {(one.kind, one.path.name) for one in listed}, listed


def test_each_number_of_days_finds_its_own_places_only(places):
    assert found(places)[0] == set()
    assert found(places, cache_days=30)[0] == {(CACHE, "abc.safetensors")}
    assert found(places, log_days=30)[0] == {(LOG, "node.log.1"), (LOG, "center.log")}
    assert found(places, step_days=30)[0] == {(STEP, "old-1"), (SUM, "open-ab.json")}
    assert found(places, cache_days=101, log_days=1e3, step_days=101)[0] == set()


def test_what_proves_something_stays_and_a_log_keeps_its_newer_lines(places):
    freed = remove(found(places, cache_days=0.5, log_days=30, step_days=0.001)[1])
    left = sorted(p.relative_to(places["vault"]).as_posix() for p in places["vault"].rglob("*") if p.is_file())
    assert left == sorted(KEPT)
    assert (places["home"] / "center.log").read_text() == "2027-01-14 00:00:00,1 INFO new\n  more\n"
    assert not (places["home"] / "node.log.1").exists() and (places["home"] / "executor.secret").exists()
    assert [p.name for p in places["cache"].rglob("*.*")] == ["notes.txt"]
    assert freed == 10 * 7 + len("2026-10-01 00:00:00,1 INFO old\n  a traceback of the old one\n")


def test_the_command_lists_first_and_leaves_a_running_nodes_logs(tmp_path, small_root, capsys):
    center = write_centers(tmp_path, small_root, ["CHUM"])["CHUM"]
    assert main(["tidy", "--center", str(center)]) == 0
    assert "sets no retention" in capsys.readouterr().out
    center.write_text(
        center.read_text().replace("cache_days: null", "cache_days: 1").replace("log_days: null", "log_days: 1")
    )
    old = write(tmp_path / ".cache" / "ab" / "abc.safetensors", days_ago=0)
    log = write(tmp_path / ".node-CHUM" / "node.log.1", days_ago=0)
    for path in (old, log):
        os.utime(path, (1.0, 1.0))
    with only_one(tmp_path / ".node-CHUM" / ".lock", otherwise=""):
        assert main(["tidy", "--center", str(center)]) == 0
        said = capsys.readouterr().out
        assert "prepared volumes: 1" in said and "1 logs are being written" in said and old.exists()
        assert main(["tidy", "--center", str(center), "--delete"]) == 0
        assert not old.exists() and log.exists()
    assert main(["tidy", "--center", str(center), "--delete"]) == 0
    assert not log.exists()


def test_days_that_are_none_are_said(tmp_path, small_root):
    center = write_centers(tmp_path, small_root, ["CHUM"])["CHUM"]
    center.write_text(center.read_text().replace("step_days: null", "step_days: -3"))
    with pytest.raises(ConfigError, match=r"retention.step_days: -3.0; write a number of days above 0"):
        read_config(center)
