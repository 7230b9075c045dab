"""When a hospital's node starts its two processes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.node import node as module
from client.node.node import A_RUN, Node, _wait_for_one

SAID = [
    "Run ID 7 is not in `RUNNING` status. Ignoring message 3f.",
    "Run transitioned to a non-`RUNNING` status while receiving a message. Ignoring the message.",
]


class AtWork:
    """A process that ends after some looks at it."""

    def __init__(self, looks: int | None = None):
        self.looks = looks

    def poll(self) -> int | None:
        if self.looks is None:
            return None
        self.looks -= 1
        return None if self.looks >= 0 else 1


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WATCH_S", 0.0)
    files = dict.fromkeys(("ca", "key"), tmp_path / "none")
    return Node("CHUM", tmp_path / "center.yaml", "fed:443", home=tmp_path, health="", port=1, **files)


@pytest.mark.parametrize("sentence", SAID)
def test_a_run_that_ends_while_a_message_is_received_starts_the_node_afresh(node, sentence):
    node.log.write_text(f"INFO : Receiving\nINFO : {sentence}\n")
    assert _wait_for_one([AtWork(), AtWork()], node) == A_RUN


def test_an_answer_that_came_too_late_does_not(node):
    node.log.write_text("INFO : Run ID 7 is not in `RUNNING` status. Ignoring reply message 3f.\n")
    assert _wait_for_one([AtWork(), AtWork(2)], node) == "Flower's SuperNode"
    assert _wait_for_one([AtWork(2), AtWork()], node) == "the executor"


def test_lines_are_read_once_and_whole(node):
    class Writing(AtWork):
        def poll(self):
            parts = ["INFO : Ignor", "ing mess", "age 3f.\n"]
            self.looks += 1
            if self.looks < len(parts):
                with node.log.open("a") as log:
                    log.write(parts[self.looks])
            return None if self.looks < 5 else 1

    assert _wait_for_one([AtWork(), Writing(-1)], node) == A_RUN


def test_flower_still_says_it_so():
    """The pattern follows Flower's own words: another version may have others."""
    import flwr.supernode.start_client_internal as flower

    said = Path(flower.__file__).read_text()
    assert 'Ignoring message %s."' in said and '"Ignoring the message."' in said
