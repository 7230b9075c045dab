"""A run of Flower's that the SuperLink no longer knows has ended: it is said, and the run folder goes on."""

from contextlib import contextmanager
from types import SimpleNamespace

from server.deploy import runs


class Emptied:
    """A SuperLink whose database was lost while a run went on."""

    def __init__(self):
        self.started = []

    def runs(self):
        return []

    def start_run(self, config):
        self.started.append(config["run-dir"])
        return 7


def test_a_run_that_the_superlink_has_lost_is_over_and_says_so(tmp_path, monkeypatch):
    link = Emptied()

    @contextmanager
    def control(address, authority):
        yield link

    monkeypatch.setattr(runs, "control", control)
    deployment = SimpleNamespace(link="127.0.0.1:1", authority=tmp_path, nodes=tmp_path / "nodes.json")
    run = SimpleNamespace(backbone=SimpleNamespace(weights=None, text_folder=None), model=None, compare_with=None)
    folder, story = SimpleNamespace(path=tmp_path / "run"), SimpleNamespace(look=lambda: None)
    state = runs._run_once(deployment, run, folder, [], story)
    assert state.is_over and "database is gone" in state.details and link.started == [str(tmp_path / "run")]
