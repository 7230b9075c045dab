"""State that centers and server keep between rounds: after a kill, the bits of a run that was never stopped."""

import pytest

from common.config.federation import FEDERATIONS, Compression
from server.run.narration import Narrator
from tests.helpers.small import adapters, federate, small_run, write_centers

TWO = ["CHUM", "CHUP"]


class Killed(BaseException):
    """The process ends here."""


def a_run(name):
    options = dict(STATEFUL[name])
    run = small_run(centers=TWO, steps=["tumour_ct"], rounds=3)
    run.steps["tumour_ct"].federation = FEDERATIONS[options.pop("kind", "mean")](**options)
    run.steps["tumour_ct"].evaluate_at = ["CHUM"]
    return run


def rounds_of(leader):
    return leader.ledger.events("round_finished")


STATEFUL = {
    "fp16": {"compression": Compression("fp16")},
    "int8": {"compression": Compression("int8")},
    "topk": {"compression": Compression("topk", share=0.2)},
    "scaffold": {"kind": "scaffold"},
    "feddyn": {"kind": "feddyn", "alpha": 0.1},
    "fedyogi": {"kind": "fedyogi"},
    "local": {"local": ["decoder/*norm*"]},
    "personal": {"personal": 0.1},
}


@pytest.mark.parametrize("name", STATEFUL)
def test_state_at_both_ends_survives_a_killed_server(tmp_path, small_root, monkeypatch, name):
    """Killed after round 2's training was aggregated but before it was on record: that round is done again."""

    def files(where):
        made = write_centers(tmp_path / where, small_root, TWO)
        return {code: path for code, path in made.items() if code in TWO}

    whole = federate(a_run(name), tmp_path / "whole", files("a"))
    with monkeypatch.context() as patch:
        finished = Narrator.round_finished

        def dying(self, event, *, of):
            finished(self, event, of=of)
            if event["round"] == 1:
                patch.setattr("server.learning.rounds.write_tensors", die)

        def die(*args, **options):
            raise Killed

        patch.setattr(Narrator, "round_finished", dying)
        with pytest.raises(Killed):
            federate(a_run(name), tmp_path / "cut", files("b"))
    resumed = federate(a_run(name), tmp_path / "cut", files("b"))
    assert [e["state_hash"] for e in rounds_of(resumed)] == [e["state_hash"] for e in rounds_of(whole)]
    assert [e["validation"] for e in rounds_of(resumed)] == [e["validation"] for e in rounds_of(whole)]
    assert adapters(resumed) == adapters(whole)
