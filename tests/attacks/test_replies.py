"""Every action x every reply that a server must not use: the code, a strike for the liar, and the others' work goes on.

The honest replies are those of real centers; one center's is changed on its way. What meets it is what meets it in a
run: enrolment, a round, the scorer, the choice of a grid, an exact fit's questions.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.exact.columns import COUNT, SQUARE, SUM
from common.exact.objectives import GRADIENT, HESSIAN, LOSS
from common.exact.ridge import GRAM
from common.exact.thresholds import TRUE
from common.protocol.arrays import NUMPY, encoded, header
from common.protocol.comparing import comparing
from common.protocol.keepsakes import FISHER
from common.protocol.messages import Order
from common.protocol.packing import pack, unpack
from common.protocol.wire import order_id, pack_order, pack_reply, unpack_order, unpack_reply
from common.tasks import build_task
from common.tasks.cuts import EVENTS
from server.centers.packed_grid import PackedGrid
from server.centers.quarantine import strikes
from server.coordinator import Coordinator
from server.evaluation.paired import told as paired_told
from server.learning.cuts import fix_cuts
from server.learning.exact.questions import Asking, LostCenters, Question
from server.learning.rounds import run_rounds
from server.learning.strategy import AdapterStrategy
from server.methods.asking import answers
from server.refitting import enrol_for
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.actions import ACTIONS, DESCRIBE, EVALUATE, RUN_ID, order_of, run_of
from tests.helpers.small import coordinator, forget, write_centers

CENTERS, LIAR = ["CHUM", "CHUP", "MDA"], "MDA"
MARKUP = '<img src=x onerror=alert(1)>\n{"kind": "center_released"}\r' + "x" * 400
IMPOSSIBLE = {
    "train": "fit.loss", "describe": "censoring_censored", "validation": "events", "scores": "events",
    "curves": "km_events", "grid": EVENTS, "moments": COUNT, "newton": HESSIAN, "gram": GRAM, "thresholds": TRUE,
    "keepsakes": FISHER + "head/bias", "paired": "paired.events",
}  # fmt: skip


@dataclass
class Told:
    """A reply on its way, and what the liar could send in its place."""

    content: RecordDict
    order: Order
    kind: str
    ask: Callable[[Order, str], RecordDict]

    def with_sums(self, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> RecordDict:
        """The same with other sums, as its center would pack them."""
        reply = unpack_reply(self.content)
        return pack_reply(replace(reply, sums=change(dict(reply.sums))))

    def with_arrays(self, group: str, **arrays: Array) -> RecordDict:
        """The same with further arrays, or others in their places."""
        return self._with(group, ArrayRecord({**self.content.array_records[group], **arrays}))

    def with_status(self, **values) -> RecordDict:
        return self._with("status", ConfigRecord({**self.content.config_records["status"], **values}))

    def earlier(self) -> RecordDict:
        """This center's answer to the same question of another attempt."""
        return self.ask(replace(self.order, attempt=self.order.attempt + 1), self.kind)

    def other(self) -> RecordDict:
        """This center's answer to another question about the same step."""
        if self.kind == DESCRIBE:
            return self.ask(order_of("scores"), EVALUATE)
        plain = replace(self.order, compared=None, extra={}, known={}, threshold=None)
        return self.ask(replace(plain, round=0, subset=""), DESCRIBE)

    def _with(self, group: str, record) -> RecordDict:
        return RecordDict({name: record if name == group else self.content[name] for name in self.content})


def a_sum(told: Told, name: str, change) -> RecordDict:
    return told.with_sums(lambda sums: sums | {name: change(sums[name])})


def raw(values: np.ndarray, *, said: str = "") -> Array:
    """An array as it lies in memory, whatever its header says."""
    written = header(values.dtype, values.shape) + values.tobytes()
    return Array(dtype=said or str(values.dtype), shape=values.shape, stype=NUMPY, data=written)


def first_sum(told: Told, change: Callable[[np.ndarray], Array]) -> RecordDict:
    """A declared sum that travels as something else; one that the reply lacks where it has none."""
    record = told.content.array_records["sums"]
    name = sorted(record)[0]
    return told.with_arrays("sums", **{name: change(record[name].numpy())})


LIES: dict[str, Callable[[Told, str], RecordDict]] = {
    "a replayed reply": lambda told, name: told.earlier(),
    "a reply to another order": lambda told, name: told.other(),
    "another answer under this order's id": lambda told, name: pack_reply(
        replace(unpack_reply(told.other()), order=told.order.id, round=told.order.round)
    ),
    "impossible sums": lambda told, name: a_sum(told, IMPOSSIBLE[name], lambda value: value * 0 - 1),
    "finite sums that overflow": lambda told, name: a_sum(told, IMPOSSIBLE[name], lambda value: value * 0 + 1.7e308),
    "sums that are no numbers": lambda told, name: a_sum(told, IMPOSSIBLE[name], lambda value: value * np.nan),
    "undeclared sums": lambda told, name: told.with_arrays("sums", patients=encoded(np.zeros(3))),
    "undeclared arrays": lambda told, name: told.with_arrays("arrays", **{"image/voxels": encoded(np.zeros((4, 4)))}),
    "two thousand undeclared arrays": lambda told, name: told.with_arrays(
        "arrays", **dict.fromkeys((f"part/{place}" for place in range(2000)), encoded(np.zeros(0)))
    ),
    "an oversized array": lambda told, name: first_sum(told, lambda value: encoded(np.zeros(2_000_000))),
    "half of the sums": lambda told, name: told.with_sums(lambda sums: dict(sorted(sums.items())[1:])),
    "another byte order": lambda told, name: first_sum(told, lambda value: raw(value.astype(">f8"))),
    "another byte order behind a plain name": lambda told, name: first_sum(
        told, lambda value: raw(value.astype(">f8"), said="float64")
    ),
    "wide floats": lambda told, name: first_sum(told, lambda value: raw(value.astype(np.longdouble))),
    "markup for a name": lambda told, name: told.with_arrays("sums", **{MARKUP: encoded(np.zeros(1))}),
    "markup for a code": lambda told, name: told.with_status(code=MARKUP),
    "markup for a count": lambda told, name: told.with_status(**{MARKUP: 1}),
    "markup for its own name": lambda told, name: told.with_status(center=MARKUP),
    "another center's name": lambda told, name: told.with_status(center="CHUM"),
}

NEWTON_LIES: dict[str, tuple[Callable[[Told, str], RecordDict], str]] = {
    "a loss that rises": (lambda told, name: a_sum(told, LOSS, lambda value: value + 1e6), "newton.loss"),
    "a large gradient": (lambda told, name: a_sum(told, GRADIENT, lambda value: value + 1e6), "newton.gradient"),
    "a large Hessian": (
        lambda told, name: a_sum(told, HESSIAN, lambda value: value + 1e8 * np.eye(value.shape[-1])), "newton.hessian"
    ),
}  # fmt: skip

# What the ledger says of the liar, by lie, and where it is another code, by action.
CODES: dict[str, tuple[str, dict[str, str]]] = {
    "a replayed reply": ("stale", {}),
    "a reply to another order": ("stale", {}),
    "another answer under this order's id": ("undeclared", {}),
    "impossible sums": ("impossible", {}),
    "finite sums that overflow": ("impossible", {}),
    "sums that are no numbers": ("not_finite", {}),
    "undeclared sums": ("undeclared", {}),
    "undeclared arrays": ("undeclared", {}),
    "two thousand undeclared arrays": ("undeclared", {}),
    "an oversized array": ("undeclared", {}),
    "half of the sums": ("incomplete", {}),
    "another byte order": ("malformed", {}),
    "another byte order behind a plain name": ("malformed", {}),
    "wide floats": ("malformed", {}),
    "markup for a name": ("undeclared", {}),
    "markup for a code": ("malformed", {}),
    "markup for a count": ("malformed", {}),
    "markup for its own name": ("malformed", {}),
    "another center's name": ("wrong_center", {}),
}


class Lying(LocalGrid):
    """Real centers, each asked the same question once; one of them lies to one action."""

    kept: dict[tuple[str, str, int], RecordDict] = {}  # noqa: RUF012 - of the whole module

    def __init__(self, files, name: str, lie: Callable[[Told, str], RecordDict] | None):
        super().__init__(files, workers=0)
        self.name, self.lie = name, lie
        self.moments: Callable[[Told], RecordDict] | None = None  # what the liar says of them, before it lies again

    def send_and_receive(self, messages, *, timeout=None):
        for message in list(messages):
            node, kind = message.metadata.dst_node_id, message.metadata.message_type
            content = self._answer(message.content, kind, node)
            if self.lie is not None and self._codes[node] == LIAR and self._is_the_action(message):
                order = unpack_order(message.content)
                ask = lambda order, kind, node=node: self._answer(pack_order(order), kind, node)  # noqa: E731
                content = self.lie(Told(content, order, kind, ask), self.name)
            if self.moments is not None and self._codes[node] == LIAR and self._asks_moments(message):
                content = self.moments(Told(content, unpack_order(message.content), kind, self.ask_nobody))
            reply = Message(content, reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = node
            yield reply

    def _answer(self, content: RecordDict, kind: str, node: int) -> RecordDict:
        key = (order_id(content), kind, node)
        if key not in self.kept:
            [(_, reply)] = self._work([Message(content, dst_node_id=node, message_type=kind)], timeout=None)
            self.kept[key] = reply.content
        return self.kept[key]

    @staticmethod
    def ask_nobody(order: Order, kind: str) -> RecordDict:
        raise AssertionError("what is said of the moments is made of the moments alone")

    @staticmethod
    def _asks_moments(message: Message) -> bool:
        asked = message.content.config_records["config"]
        is_first = (asked["subset"], asked["round"]) == ("", 0)
        return message.metadata.message_type == ACTIONS["moments"].kind and is_first

    def _is_the_action(self, message: Message) -> bool:
        config, action = message.content.config_records["config"], ACTIONS[self.name]
        asked = (config["subset"], config["round"])
        wanted = (action.changes.get("subset", ""), action.changes.get("round", 0))
        return message.metadata.message_type == action.kind and asked == wanted


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_root):
    forget()
    Lying.kept.clear()
    return write_centers(tmp_path_factory.mktemp("centers"), small_root, CENTERS)


def leader_of(folder, files, name: str, lie=None) -> Coordinator:
    run = copy.deepcopy(run_of(ACTIONS[name].step))
    for step in run.steps.values():
        step.methods = order_of(name).step.methods
        step.centers, step.evaluate_at = list(CENTERS), list(CENTERS)
        step.federation.quorum = 0.5
    leader = coordinator(run, folder, Lying(files, name, lie))
    leader.federation.enrolled = leader.federation.grid.enrolled
    leader.ledger.append("run_started", {"id": RUN_ID, "base": leader.base})
    return leader


# ------------------------------------------------------------------------------------- whose answer the server uses


def used(leader: Coordinator, name: str) -> set[str]:
    """The centers whose answers to the action the server uses; what it does with the others stands in the ledger."""
    action = ACTIONS[name]
    [step] = leader.run.steps.values()
    order = leader.order(step)
    enrolment = enrol_for(leader, order)
    if name == "describe":
        return set(enrolment.training)
    asked = {"step": step.name, "centers": CENTERS, "refused": {}, "counts": enrolment.counts}
    leader.ledger.append("step_started", asked)
    order.state = order_of(name).state
    if name in ("train", "validation"):
        return _of_a_round(leader, order, enrolment, name)
    if name in ("scores", "curves"):
        order = replace(order, **action.changes)
        return set(leader.scorer.sums(order, build_task(step.task), CENTERS))
    if name == "paired":
        order = comparing(replace(order, **action.changes), order.step, state=order.state, known={})
        return set(paired_told(leader, step, leader.federation.ask(CENTERS, order, EVALUATE))[0])
    if name == "keepsakes":
        return set(answers(leader, replace(order, **action.changes), CENTERS)[1]["centers"])
    if name == "grid":
        step.task.grid, step.task.cuts_days, step.task.bins = "quantiles", [], 3  # of the few events that there are
        order.state = {}
        fix_cuts(step, order, leader.federation, leader.ledger, say=lambda line: None)
        return set(leader.ledger.events("grid_chosen")[0]["centers"])
    return _of_a_question(leader, order, name)


def _of_a_round(leader, order, enrolment, name: str) -> set[str]:
    task, nodes = build_task(order.step.task), leader.federation.nodes
    counts = {part: {c: enrolment.counts[c][part] for c in CENTERS} for part in ("train", "validation")}
    strategy = AdapterStrategy(order, nodes=nodes, cases=counts["train"], validation=counts["validation"], task=task)
    run_rounds(leader.federation, strategy, task, folder=leader.folder, ledger=leader.ledger, narrator=leader.narrator)
    [event] = leader.ledger.events("round_finished")
    assert not event["void"]
    return set(event["train"] if name == "train" else event["validation"]["centers"])


def _of_a_question(leader, order, name: str) -> set[str]:
    asking = Asking(leader.federation, order, folder=leader.folder, ledger=leader.ledger, narrator=leader.narrator)
    asked = order_of(name)
    if name == "newton":
        asking.ask(Question(0), CENTERS)
    question = Question(asked.round, asked.known, asked.subset, order.state if asked.subset else {})
    try:
        asking.ask(question, CENTERS)
    except LostCenters as lost:
        assert set(lost.reasons) == {LIAR}
    return set(leader.ledger.events("newton_round")[-1]["centers"])


def codes(leader: Coordinator) -> list[str]:
    """What stands in the ledger of stopped answers, whoever's."""
    said = [(event["center"], event["code"]) for event in leader.ledger.events("reply_rejected")]
    rounds = leader.ledger.events("round_finished")
    said += [(center, row["code"]) for event in rounds for center, row in event["quarantined"].items()]
    assert {center for center, _ in said} <= {LIAR}
    return [code for _, code in said]


# --------------------------------------------------------------------------------------------------------- the table


def test_every_lie_has_its_codes():
    assert LIES.keys() == CODES.keys() and IMPOSSIBLE.keys() == ACTIONS.keys()


@pytest.mark.parametrize("name", ACTIONS)
def test_honest_answers_are_used_and_cost_nothing(tmp_path, files, name):
    leader = leader_of(tmp_path, files, name)
    assert used(leader, name) == set(CENTERS)
    assert codes(leader) == [] and strikes(leader.ledger) == {}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_lie_is_told_from_an_answer_and_the_others_go_on(tmp_path, files, name, lie):
    leader = leader_of(tmp_path, files, name, LIES[lie])
    assert used(leader, name) == set(CENTERS) - {LIAR}
    code, other = CODES[lie]
    assert codes(leader) == [other.get(name, code)]
    assert strikes(leader.ledger) == {LIAR: 1}
    lines = leader.ledger.path.read_bytes().splitlines()
    assert leader.ledger.verify() == len(lines) == len(leader.ledger.events())
    assert not leader.ledger.events("center_released") and max(map(len, lines)) < 20_000
    told = [event.get("told", "") for event in leader.ledger.events("reply_rejected")]
    assert all(len(text) <= 300 and "\n" not in text and "\r" not in text for text in told)
    json.loads(lines[-1])


@pytest.mark.parametrize("hidden", [False, True], ids=["true moments", "zero moments"])
@pytest.mark.parametrize("lie", NEWTON_LIES)
def test_newton_sums_beyond_the_centers_own_moments_are_a_strike(tmp_path, files, lie, hidden):
    """Moments of which every column is hidden excuse nothing either."""
    change, told = NEWTON_LIES[lie]
    leader = leader_of(tmp_path, files, "newton", change)
    if hidden:
        leader.federation.grid.moments = lambda told: told.with_sums(
            lambda sums: sums | {name: sums[name] * 0 for name in (COUNT, SUM, SQUARE)}
        )
    assert used(leader, "newton") == set(CENTERS) - {LIAR}
    assert codes(leader) == ["impossible"] and strikes(leader.ledger) == {LIAR: 1}
    [event] = leader.ledger.events("reply_rejected")
    assert event["told"] == f"{told} is more than the center's own columns allow"


# ------------------------------------------------------------------------------------------------ over a packed grid

PACKED_LIES = [
    "impossible sums", "finite sums that overflow", "sums that are no numbers", "an oversized array",
    "another byte order", "another byte order behind a plain name", "wide floats", "two thousand undeclared arrays",
]  # fmt: skip


class Wire(Lying):
    """A SuperLink between packed ends: what a deployed run's messages go through."""

    def push_messages(self, messages):
        self.waiting = {f"m{place}": message for place, message in enumerate(messages)}
        for name, message in self.waiting.items():
            message.metadata.__dict__["_message_id"] = name
        return list(self.waiting)

    def pull_messages(self, message_ids):
        asked = [self.waiting[name] for name in sorted(message_ids)]
        for message in asked:
            message.content = unpack(message.content)
        for reply in self.send_and_receive(asked):
            reply.content = pack(reply.content)
            yield reply


@pytest.mark.parametrize("lie", PACKED_LIES)
@pytest.mark.parametrize("name", ["train", "scores", "newton", "gram"])
def test_a_lie_is_the_same_over_a_deployed_runs_packed_messages(tmp_path, files, name, lie, monkeypatch):
    identity = {"_task_id": 1, "_run_id": 2, "_node_id": 1}
    for field, value in identity.items():
        monkeypatch.setattr(TaskIdentity, field, value)
    leader = leader_of(tmp_path, files, name, LIES[lie])
    wire = Wire(files, name, LIES[lie])
    leader.federation.grid, leader.federation.enrolled = PackedGrid(wire), wire.enrolled
    assert used(leader, name) == set(CENTERS) - {LIAR}
    code, other = CODES[lie]
    assert codes(leader) == [other.get(name, code)]
    assert strikes(leader.ledger) == {LIAR: 1}
