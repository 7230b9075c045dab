"""The strategy sends one order per center and averages what may be used, weighted by what was registered."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message

from common.config.federation import FEDERATIONS, Guards
from common.config.run import BackboneSpec, Split
from common.protocol.arrays import pack_state, unpack_state
from common.protocol.messages import Order, Reply
from common.protocol.wire import order_id, pack_reply, unpack_order
from server.centers.federation import packed
from server.centers.roster import SUSPENDED
from server.learning.strategy import AdapterStrategy
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.small import small_run

STATE = {"decoder/w": torch.zeros(2)}
NO_SUMS = SimpleNamespace(sum_shapes={}, bounds=(), signed=frozenset(), by_subgroup={})
FIT = {name: np.array(1.0) for name in ("fit.loss", "fit.cases", "fit.batches")}


@pytest.fixture
def strategy(small_centers):
    def build(count=4, *, quorum=0.7, weighting="n"):
        step = small_run(steps=["tumour_ct"]).steps["tumour_ct"]
        step.federation.quorum, step.federation.weighting = quorum, weighting
        order = Order(step, 1, 0, BackboneSpec(kind="tiny"), "base", Split(), state=STATE)
        nodes = {f"C{i}": 100 + i for i in range(count)}
        return AdapterStrategy(order, nodes=nodes, cases={c: i + 1 for i, c in enumerate(nodes)}, task=NO_SUMS)

    LocalGrid({}, workers=0).close()  # gives messages their process's identity
    return build


def answers(strategy, values, *, number=3, **counts):
    """Replies in the given order; a value of None is a center that failed."""
    sent = {m.metadata.dst_node_id: m for m in packed(strategy.training_orders(number, strategy.order.state))}
    for center, value in values.items():
        ok = value is not None
        reply = Reply(
            center, "ok" if ok else "internal", {"decoder/w": torch.full((2,), value)} if ok else {},
            FIT, {"cases": strategy.cases.get(center, 1), "batches": 1, **counts}, round=number,
            order=order_id(sent[strategy.nodes[center]].content),
        )  # fmt: skip
        message = Message(pack_reply(reply), reply_to=sent[strategy.nodes[center]])
        message.metadata.__dict__["_src_node_id"] = strategy.nodes[center]
        yield message


def test_every_center_gets_the_state_and_the_round(strategy):
    asked = list(strategy().configure_train(3, pack_state({"decoder/w": torch.ones(2)}), ConfigRecord(), None))
    assert [m.metadata.dst_node_id for m in asked] == [100, 101, 102, 103]
    order = unpack_order(asked[0].content)
    assert order.round == 3 and torch.equal(order.state["decoder/w"], torch.ones(2))


def test_weights_are_the_registered_cases(strategy):
    chosen = strategy(3)
    arrays, _ = chosen.aggregate_train(3, answers(chosen, {"C2": 6.0, "C0": 0.0, "C1": 3.0}))
    assert unpack_state(arrays)["decoder/w"].tolist() == [(0 * 1 + 3 * 2 + 6 * 3) / 6] * 2
    assert list(chosen.outcome.accepted) == ["C0", "C1", "C2"]


@pytest.mark.parametrize(("answering", "is_void"), [(4, False), (3, False), (2, True)])
def test_a_quorum_of_70_percent_of_four_is_three(strategy, answering, is_void):
    chosen = strategy(4)
    arrays, _ = chosen.aggregate_train(3, answers(chosen, {f"C{i}": 1.0 for i in range(answering)}))
    assert (arrays is None) == is_void


def test_a_quorum_is_never_rounded_down(strategy):
    chosen = strategy(6, quorum=0.7)  # 4.2 centers: four of six are fewer than 70 %
    arrays, _ = chosen.aggregate_train(3, answers(chosen, {f"C{i}": 1.0 for i in range(4)}))
    assert arrays is None
    exact = strategy(10, quorum=0.7)  # 0.7 * 10 is a little more than 7 in floating point
    assert exact.aggregate_train(3, answers(exact, {f"C{i}": 1.0 for i in range(7)}))[0] is not None


def test_failed_and_silent_centers_have_a_code(strategy):
    chosen = strategy(4, quorum=0.1)
    chosen.aggregate_train(3, answers(chosen, {"C0": 1.0, "C1": None}))
    assert chosen.outcome.rejected == {"C1": "internal", "C2": "no_reply", "C3": "no_reply"}


def test_a_stranger_is_not_heard(strategy):
    chosen, other = strategy(2, quorum=0.1), strategy(4, quorum=0.1)
    chosen.training_orders(3, STATE)
    arrays, _ = chosen.aggregate_train(3, list(answers(other, {"C3": 9.0, "C0": 2.0})))
    assert unpack_state(arrays)["decoder/w"].tolist() == [2.0, 2.0]


# ------------------------------------------------------------------------------------- centers that the guards stopped


@pytest.fixture
def robust(strategy):
    def build(kind, faulty, count=7, **options):
        chosen = strategy(count)
        chosen.order.step.federation = FEDERATIONS[kind](faulty=faulty, quorum=0.5, **options)
        return chosen

    return build


def made(chosen, values):
    state = chosen.aggregate(3, answers(chosen, values))
    return None if state is None else state["decoder/w"].tolist()


SEVEN = {f"C{i}": v for i, v in enumerate([0.9, 1.0, 1.1, 0.8, 1.2, np.nan, np.nan])}


def test_quarantined_updates_count_among_the_faulty_ones_only_as_far_as_the_bound_needs(robust):
    chosen = robust("multi_krum", 2)  # needs 7; of the 5 that are left it withstands 1 and takes the 4 nearest
    assert made(chosen, SEVEN) == pytest.approx([0.95] * 2) and set(chosen.outcome.quarantined) == {"C5", "C6"}
    [note] = chosen.outcome.report["notes"]
    assert "withstands 1 instead of 2 faulty centers among the 5" in note and "keep 2 out of this round" in note


def test_a_suspended_center_counts_as_a_stopped_one_enrolled_or_not(robust):
    for count in (7, 6):  # of the seven that the step names, C6 enrolled before it was suspended, or was not let in
        chosen = robust("multi_krum", 2, count)
        chosen.resting, chosen.suspended = ({"C6": SUSPENDED} if count == 7 else {}), {"C6"}
        assert made(chosen, dict(list(SEVEN.items())[:5])) is not None and not chosen.outcome.void
    away = robust("multi_krum", 2)
    assert made(away, {**dict(list(SEVEN.items())[:5]), "C5": 1.0}) is None
    assert "withstands 2 faulty centers among at least 2 x 2 + 3 = 7, but 6 updates carry decoder" in away.outcome.void


def test_a_rule_is_lowered_by_no_more_than_was_stopped(robust):
    chosen = robust("multi_krum", 2)
    chosen.suspended, chosen.resting = {"C6"}, {"C6": SUSPENDED}
    assert made(chosen, dict(list(SEVEN.items())[:4])) is None
    assert "withstands 1 faulty centers (2, less those of the 1 stopped by the guards)" in chosen.outcome.void
    assert "2 x 1 + 3 = 5, but 4 updates carry decoder" in chosen.outcome.void


def test_an_honest_rejection_does_not_make_a_rule_trim_less_while_enough_are_left(robust):
    values = {"C0": 1.0, "C1": 1.0, "C2": 1.0, "C3": 9.0, "C4": -9.0, "C5": -9.0, "C6": np.nan}
    chosen = robust("trimmed_mean", 2, guards=Guards(norm_factor=0.0))
    assert made(chosen, values) == [1.0] * 2, "six are enough for two: -9, -9 and 1, 9 are trimmed, not -9 and 9 alone"
    assert "notes" not in chosen.outcome.report


def test_a_part_that_too_few_carry_stays_and_the_others_are_aggregated(robust):
    """Seven centers, four of them with PET, f = 2: five are needed."""
    chosen = robust("geometric_median", 2)
    start = {"decoder/w": torch.zeros(2), "stem_pet/w": torch.ones(2)}
    chosen.order = replace(chosen.order, state=start)
    sent = {m.metadata.dst_node_id: m for m in packed(chosen.training_orders(3, start))}
    replies = []
    for i, (center, node) in enumerate(chosen.nodes.items()):
        state = {"decoder/w": torch.ones(2)} | ({"stem_pet/w": torch.full((2,), 2.0)} if i < 4 else {})
        own = Reply(center, "ok", state, FIT, {"cases": 1, "batches": 1}, round=3, order=order_id(sent[node].content))
        message = Message(pack_reply(own), reply_to=sent[node])
        message.metadata.__dict__["_src_node_id"] = node
        replies.append(message)
    new = chosen.aggregate(3, replies)
    assert new["decoder/w"].tolist() == [1.0, 1.0] and new["stem_pet/w"].tolist() == [1.0, 1.0]
    assert not chosen.outcome.void and len(chosen.outcome.accepted) == 7
    assert chosen.outcome.report["notes"] == [
        "Rule geometric_median withstands 2 faulty centers among at least 2 x 2 + 1 = 5, but 4 updates carry stem_pet: "
        "that stays as it was."
    ]
