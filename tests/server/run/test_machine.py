"""plan --machine tells everything that this machine lacks for a run, at once."""

from __future__ import annotations

import pytest

from common.config.load import compose_run
from server.__main__ import main
from server.run.machine import machine_problems


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_machine_that_has_everything_lacks_nothing():
    assert machine_problems(compose_run(["curriculum=smoke"])) == []


def test_everything_that_is_missing_is_told_at_once(capsys, tmp_path):
    (tmp_path / "taken").write_text("")
    lacking = [
        "backbone=ct_clip", "backbone.weights=lost.pt", "data=folder", "data.root=lost", "data.mapping=lost.yaml",
        "runtime.threads=4096", "out=taken",
    ]  # fmt: skip
    assert main(["plan", "--machine", "curriculum=smoke", *lacking]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("missing here: ")]
    for word in (
        "runtime.threads is 4096",
        "taken' cannot be written to",
        "backbone.weights 'lost.pt'",
        "data.root 'lost'",
        "data.mapping",
    ):
        assert any(word in line for line in lines), word


def test_weights_that_do_not_ship_are_asked_for():
    [problem] = machine_problems(compose_run(["curriculum=smoke", "backbone=unetr"]))
    assert problem.startswith("Backbone unetr vit_b does not ship with fedgraft; set backbone.weights")


def test_what_is_there_is_said(capsys):
    assert main(["plan", "--machine", "curriculum=smoke"]) == 0
    said = capsys.readouterr().out
    assert "frozen model: tiny mini, drawn from a seed" in said and "GB free for 'runs'" in said
