"""health: whether the node serves, and how long ago the coordinator last answered it."""

from __future__ import annotations

import os

import pytest

from client.commands import health
from client.commands.health import contact
from client.node.node import home_of, last_contact
from client.node.supernode import leave_marks

NOW = 1_800_000_000.0


def started(tmp_path, *, minutes, reached=None):
    home = home_of(tmp_path / "center.yaml", "CHUM")
    home.mkdir(exist_ok=True)
    for name, age in (("executor.secret", minutes), ("reached", reached)):
        if age is not None:
            (home / name).touch()
            os.utime(home / name, (NOW - 60 * age, NOW - 60 * age))


def asked(tmp_path, within=10.0):
    return contact(tmp_path / "center.yaml", "CHUM", within_minutes=within, now=NOW)


@pytest.mark.parametrize(
    ("started_ago", "reached_ago", "fresh", "words"),
    [
        (100, 1, True, "last answered"),
        (100, 9.9, True, "10 minutes ago"),
        (100, 11, False, "more than 10 minutes: ask your IT"),
        (3, None, True, "no answer since the node started"),
        (11, None, False, "no answer since the node started"),
    ],
)
def test_the_age_of_the_last_answer_decides(tmp_path, started_ago, reached_ago, fresh, words):
    started(tmp_path, minutes=started_ago, reached=reached_ago)
    sentence, found = asked(tmp_path)
    assert found is fresh and words in sentence


def test_where_no_node_was_started_nothing_is_said(tmp_path):
    assert asked(tmp_path) == ("", True) and last_contact(tmp_path) is None


def test_health_fails_where_a_serving_node_lost_the_coordinator(tmp_path, monkeypatch, capsys):
    from client.__main__ import main

    (tmp_path / "center.yaml").write_text(f"code: CHUM\nroot: {tmp_path}\n")
    monkeypatch.setattr(health, "probe", lambda address, patience_s: "SERVING")
    monkeypatch.setattr(health.time, "time", lambda: NOW)
    started(tmp_path, minutes=100, reached=30)
    words = ["health", "--center", str(tmp_path / "center.yaml")]
    assert main(words) == 1 and "30 minutes ago, more than 10" in capsys.readouterr().out
    assert main([*words, "--within", "60"]) == 0
    assert main([*words, "--address", "127.0.0.1:1"]) == 0  # another machine's probe looks at nothing else


def test_every_answer_leaves_a_mark_and_no_failure_does(tmp_path):
    class Client:
        def _unary_unary(self, *, path):
            if path == "down":
                raise ConnectionError
            return path

    leave_marks(Client, tmp_path / "reached")
    with pytest.raises(ConnectionError):
        Client()._unary_unary(path="down")
    assert not (tmp_path / "reached").exists()
    assert Client()._unary_unary(path="up") == "up" and (tmp_path / "reached").exists()


def test_a_mark_that_cannot_be_written_stops_nothing(tmp_path):
    class Client:
        def _unary_unary(self):
            return 1

    leave_marks(Client, tmp_path / "nowhere" / "reached")
    assert Client()._unary_unary() == 1


def test_flower_still_asks_through_one_function():
    """`leave_marks` follows Flower's own client: another version may have another."""
    from flwr.supernode.fleet_http_client import FleetHttpClient

    assert callable(FleetHttpClient._unary_unary)
    assert FleetHttpClient.SendNodeHeartbeat.__code__.co_names[0] == "_unary_unary"
