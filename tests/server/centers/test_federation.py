"""Centers come late, leave, come back under another node, and are waited for where everyone is asked."""

from typing import ClassVar

from server.centers import federation
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.small import SIZES, federate, small_run


class Moving(LocalGrid):
    """Nodes that are there only in some of the questions about who is there."""

    away: ClassVar[dict[str, range]] = {}  # center -> rounds (questions) in which it is not there
    asked = 0

    def get_node_ids(self):
        number = type(self).asked
        return [node for node in self.centers if number not in type(self).away.get(self._codes[node], range(0))]

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        if messages and messages[0].metadata.message_type == "train":
            type(self).asked = int(messages[0].content.config_records["config"]["round"])
        return super().send_and_receive(messages, timeout=timeout)


def moving(**away):
    return type("Moved", (Moving,), {"away": away, "asked": 0})


def a_run(rounds=4):
    run = small_run(centers=list(SIZES), steps=["tumour_ct"], rounds=rounds)
    run.steps["tumour_ct"].federation.quorum, run.steps["tumour_ct"].evaluate_at = 0.5, ["CHUM"]
    return run


def test_a_late_center_joins_and_one_that_leaves_is_not_waited_for(tmp_path, small_centers):
    grid = moving(HMR=range(0, 2), MDA=range(1, 3))  # HMR comes after round 1; MDA is gone for rounds 2 and 3
    leader = federate(a_run(), tmp_path, small_centers, grid=grid)
    started = leader.ledger.events("step_started")[0]
    assert started["refused"] == {"HMR": "not_connected"}
    trained = [sorted(event["train"]) for event in leader.ledger.events("round_finished")]
    assert trained[0] == ["CHUM", "CHUP", "MDA"]
    assert trained[1] == ["CHUM", "CHUP"] and trained[3] == ["CHUM", "CHUP", "HMR", "MDA"]
    joined = [(e["center"], e["round"]) for e in leader.ledger.events("center_joined")]
    assert ("HMR", 3) in joined
    assert leader.ledger.events("round_finished")[1]["failed"] == {"MDA": "left"}


class Growing(LocalGrid):
    """One node more each time somebody looks, up to four; more could still come."""

    is_complete = False
    looked = 0

    def get_node_ids(self):
        self.looked += 1
        return list(range(min(self.looked, 4)))


def test_asking_everyone_waits_until_no_more_come(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(federation.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(federation.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    asking = federation.Federation(Growing({}, workers=0), patience_s=60.0)
    assert asking._wait_for_nodes(1, True) == [0, 1, 2, 3] and now[0] >= federation.SETTLE_S
    assert federation.Federation(Growing({}, workers=0))._wait_for_nodes(2, False) == [0, 1]
    impatient = federation.Federation(Growing({}, workers=0), patience_s=1.5)
    assert impatient._wait_for_nodes(9, True) != [], "whoever is there when the patience ends"
