"""Who takes part in a step, who does not and why; asked over a grid that answers by heart."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message

from common.config.run import BackboneSpec, Split
from common.errors import DataError, RoundFailed
from common.protocol.messages import Order, Reply
from common.protocol.wire import order_id, pack_reply
from common.store.ledger import Ledger
from server.centers import federation
from server.centers.enrolment import enrol, join
from server.centers.federation import Federation
from server.centers.roster import Roster
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.small import small_run

FULL = {"train": 4, "validation": 1, "test": 2}


class Reciting(LocalGrid):
    """Nodes that know one reply each; None never answers."""

    def __init__(self, replies):
        super().__init__({}, workers=0)
        self.replies = {100 + i: reply for i, reply in enumerate(replies)}

    def get_node_ids(self):
        return list(self.replies)

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            reply = self.replies[message.metadata.dst_node_id]
            if reply is not None:
                own = replace(reply, order=order_id(message.content))
                answer = Message(pack_reply(own), reply_to=message)
                answer.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
                yield answer


def order(*, centers=("*",), evaluate_at=("*",), rounds=2, skip_unreadable=True):
    step = small_run(steps=["tumour_ct"]).steps["tumour_ct"]
    step.centers, step.evaluate_at, step.rounds = list(centers), list(evaluate_at), rounds
    return Order(step, 1, 0, BackboneSpec(), "b", Split(), skip_unreadable=skip_unreadable)


def enrolled(replies, **settings):
    return enrol(Federation(Reciting(replies), patience_s=0.0), order(**settings))


@pytest.mark.parametrize("inflated", ["train", "validation"])
def test_a_center_whose_counts_dwarf_the_others_does_not_train(inflated):
    replies = [Reply(code, counts=FULL) for code in "ABC"]
    found = enrolled([*replies, Reply("D", counts={**FULL, inflated: 10**9})])
    assert found.training == ["A", "B", "C"] and found.refused == {"D": "counts_implausible"}
    assert enrolled([*replies, Reply("D", counts={**FULL, "train": 400})]).training == ["A", "B", "C", "D"]


@pytest.mark.parametrize("evaluates_only", [False, True])
def test_nor_is_it_scored_at(evaluates_only):
    """Its scores over as many cases as it likes would be the pooled ones."""
    liar = {**FULL, "test": 10**12} | ({"train": 0} if evaluates_only else {})
    found = enrolled([*(Reply(code, counts=FULL) for code in "ABC"), Reply("D", counts=liar)])
    assert (found.training, found.evaluating, found.refused["D"]) == (list("ABC"), list("ABC"), "counts_implausible")


def test_of_two_centers_nobody_knows_which_count_is_wrong():
    found = enrolled([Reply("A", counts=FULL), Reply("B", counts={**FULL, "train": 10**9})])
    assert found.training == ["A", "B"] and not found.refused


def test_a_late_joiner_is_held_against_those_that_take_part():
    federation = Federation(Reciting([Reply("D", counts={**FULL, "train": 10**9})]), patience_s=0.0)
    found = join(federation, order(), known={"A": 4, "B": 6, "C": 9})
    assert not found.training and found.refused == {"D": "counts_implausible"}


def test_everyone_who_can_takes_part_and_the_others_have_a_reason():
    found = enrolled(
        [
            Reply("A", counts=FULL),
            Reply("B", counts={**FULL, "train": 0}),
            Reply("C", counts={**FULL, "test": 0}),
            Reply("D", "declined.cases", counts={**FULL, "train": 1}),
            Reply("E", "declined.task"),
            None,
        ]
    )
    assert found.training == ["A", "C"] and found.evaluating == ["A", "B", "D"]
    assert found.refused == {"B": "no_training_cases", "D": "declined.cases", "E": "declined.task"}
    assert set(found.counts) == {"A", "B", "C", "D"}


def test_only_named_centers_are_asked_to_train():
    found = enrolled([Reply("A", counts=FULL), Reply("B", counts=FULL)], centers=["B"], evaluate_at=["A", "X"])
    assert (found.training, found.evaluating, found.refused) == (["B"], ["A"], {"X": "not_connected"})


def test_a_step_without_rounds_is_evaluated_only():
    found = enrolled([Reply("A", "declined.cases", counts=FULL)], rounds=0)
    assert (found.training, found.evaluating, found.refused) == ([], ["A"], {})


def test_nobody_to_train_stops_the_step():
    with pytest.raises(RoundFailed, match=r"No center can train step 'tumour_ct': \{'A': 'no_training_cases'\}"):
        enrolled([Reply("A", counts={**FULL, "train": 0})])


def test_a_deadline_that_nobody_met_is_told_apart_from_nobody_being_there():
    asked = order(centers=("A",), evaluate_at=("A",))
    asked.step.federation.deadline_s = 7.0
    said = r"'A': 'no_reply'.*1 connected nodes did not answer within the step's deadline of 7 s: give steps\.tumour_ct"
    with pytest.raises(RoundFailed, match=said):
        enrol(Federation(Reciting([None]), patience_s=0.0), asked)
    with pytest.raises(RoundFailed, match=r"'X': 'not_connected'\}\. What the codes mean: [\w/.]+$"):
        enrolled([Reply("Y", counts={**FULL, "train": 0})], centers=("X", "Y"), evaluate_at=())


class Restarting(Reciting):
    """B's node leaves when it is first asked, and is there again after five looks."""

    is_complete = False
    looks = asked = 0

    def get_node_ids(self):
        self.looks += 1
        return [node for node in self.replies if node != 101 or not self.asked or self.looks >= 6]

    def send_and_receive(self, messages, *, timeout=None):
        self.asked += 1
        kept = [message for message in messages if message.metadata.dst_node_id != 101 or self.asked > 1]
        yield from super().send_and_receive(kept, timeout=timeout)


@pytest.mark.parametrize(("patience_s", "training"), [(60.0, ["A", "B"]), (2.0, ["A"])])
def test_a_node_that_leaves_while_it_is_asked_is_waited_for(monkeypatch, patience_s, training):
    now = [0.0]
    monkeypatch.setattr(federation.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(federation.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    grid = Restarting([Reply("A", counts=FULL), Reply("B", counts=FULL)])
    asked = order(centers=("A", "B"), evaluate_at=("A", "B"))
    asked.step.federation.deadline_s = 200.0
    found = enrol(Federation(grid, patience_s=patience_s), asked)
    assert found.training == training and now[0] <= 5.0
    assert found.refused == ({} if "B" in training else {"B": "no_reply"})


def test_nobody_connected_stops_the_step():
    with pytest.raises(RoundFailed, match="None of 1 centers connected within 0 s"):
        enrolled([])


def test_broken_data_stops_the_step_only_if_configured_so():
    replies = [Reply("A", counts=FULL), Reply("B", "data")]
    assert enrolled(replies).refused == {"B": "data"}
    with pytest.raises(DataError, match=r"B cannot use all of their cases; .* data\.skip_unreadable=true"):
        enrolled(replies, skip_unreadable=False)


def test_a_name_claimed_twice_without_keys_is_refused(caplog):
    grid = Reciting([Reply("A", counts=FULL), Reply("A", counts={**FULL, "train": 99}), Reply("B", counts=FULL)])
    federation = Federation(grid, patience_s=0.0)
    assert enrol(federation, order()).counts == {"B": FULL}
    assert federation.nodes == {"B": 102} and "2 nodes without keys call themselves A" in caplog.text


def test_a_key_says_who_it_is_that_lies(caplog):
    grid = Reciting([Reply("A", counts=FULL), Reply("A", counts={**FULL, "train": 99})])
    federation = Federation(grid, patience_s=0.0, enrolled=lambda: {"A": 100, "B": 101})
    found = enrol(federation, order())
    assert found.counts == {"A": FULL} and found.training == ["A"] and found.refused == {"B": "wrong_center"}
    assert found.rejected["B"].code == "wrong_center", "which costs a strike"
    assert "a node enrolled as B calls itself A" in caplog.text


def test_a_center_that_has_left_hears_nothing(tmp_path):
    grid = Reciting([Reply("A", counts=FULL), Reply("B", counts=FULL)])
    federation, ledger = Federation(grid, patience_s=0.0, enrolled=lambda: {"A": 100, "B": 101}), Ledger(tmp_path / "l")
    ledger.append("center_withdrawn", {"center": "B", "steps": {}})
    federation.roster = Roster(ledger)
    heard = []
    send = grid.send_and_receive
    grid.send_and_receive = lambda messages, **more: send(heard.extend(messages) or messages, **more)
    kept_out = federation.roster.kept_from_training(limit=3)
    found = enrol(federation, order(), kept_out=kept_out)
    assert found.training == ["A"] and found.refused == {"B": "withdrawn"}
    federation.ask(["A"], order(), "query.describe")
    assert {message.metadata.dst_node_id for message in heard} == {100}


@pytest.mark.parametrize("action", ["query.describe", "evaluate"])
def test_an_answer_in_another_centers_name_is_nobodys(action):
    grid = Reciting([Reply("A", counts=FULL), Reply("A", counts=FULL)])
    federation = Federation(grid, patience_s=0.0)
    federation.nodes = {"A": 100, "B": 101}
    asked = [
        federation.ask(["A", "B"], order(), action),
        federation.ask_each(dict.fromkeys("AB", order()), action),
    ]
    for exchange in asked:
        assert exchange.failed == {"B": "wrong_center"} and list(exchange.usable) == ["A"]


class Forgetful(Reciting):
    """A grid over a network: its node 101 takes the first question and says nothing."""

    is_complete = False

    def __init__(self, replies, *, deaf=()):
        super().__init__(replies)
        self.deaf, self.asked = set(deaf), []

    def send_and_receive(self, messages, *, timeout=None):
        nodes = [message.metadata.dst_node_id for message in messages]
        self.asked.append((nodes, timeout))
        first = len(self.asked) == 1
        heard = [m for m, n in zip(messages, nodes, strict=True) if n not in self.deaf and not (first and n == 101)]
        yield from super().send_and_receive(heard, timeout=timeout)


def test_a_connected_node_that_does_not_say_who_it_is_is_asked_again():
    grid = Forgetful([Reply("A", counts=FULL), Reply("B", counts=FULL)])
    found = enrol(Federation(grid, patience_s=0.0), order(centers=("A", "B"), evaluate_at=("A", "B")))
    assert found.training == ["A", "B"]
    assert grid.asked == [([100, 101], 60.0), ([101], 120.0)]


def test_asking_again_ends_with_the_steps_deadline():
    grid = Forgetful([Reply("A", counts=FULL), Reply("B", counts=FULL)], deaf=[101])
    step = order(centers=("A", "B"), evaluate_at=("A", "B"))
    step.step.federation.deadline_s = 200.0
    assert enrol(Federation(grid, patience_s=0.0), step).training == ["A"]
    assert [timeout for _, timeout in grid.asked] == [60.0, 120.0, 20.0]


def prognosis_order():
    step = small_run(steps=["relapse"]).steps["relapse"]
    step.centers, step.evaluate_at, step.rounds = ["*"], ["*"], 2
    return Order(step, 1, 0, BackboneSpec(), "b", Split())


def test_label_sums_of_the_training_centers_add_up():
    bins = prognosis_order().step.task.bins
    told = {"censoring_at_risk": np.full(bins, 4.0), "censoring_censored": np.ones(bins)}
    replies = [Reply("CHUM", counts=FULL, sums=told), Reply("MDA", counts=FULL, sums=told)]
    replies.append(Reply("HMR", counts={"train": 0, "validation": 0, "test": 2}, sums=told))  # only tests
    replies.append(Reply("HGJ", counts=FULL))  # fewer cases than its minimum: it says nothing
    found = enrol(Federation(Reciting(replies), patience_s=0.0), prognosis_order())
    assert found.training == ["CHUM", "HGJ", "MDA"]
    assert found.known["censoring_at_risk"].tolist() == [8.0] * bins


@pytest.mark.parametrize(
    ("sums", "code"), [({"days": np.ones(3)}, "undeclared"), ({"censoring_at_risk": np.full(12, np.nan)}, "not_finite")]
)
def test_label_sums_that_are_undeclared_or_not_finite_keep_a_center_out(sums, code):
    replies = [Reply("CHUM", counts=FULL), Reply("MDA", counts=FULL, sums=sums)]
    found = enrol(Federation(Reciting(replies), patience_s=0.0), prognosis_order())
    assert found.training == ["CHUM"] and found.refused == {"MDA": code} and found.known == {}
