"""Faults on purpose: a LocalGrid whose centers fail, lie or attack as a run's ``faults`` say.

Composable with any curriculum: ``+faults.a='{kind: nan, centers: [CHUP], rounds: [2]}'``, or from YAML. A fault
concerns training (and, for a center that is away, slow or has wrong labels, the round's validation); test scores of
finished steps are never touched. Which center fails in which round is drawn from the run's seed, so a run with faults
can be repeated and resumed.

| kind | what happens | ``factor`` (default) |
|---|---|---|
| dropout | the center does not answer | |
| straggler | it takes this many times as long | 10 |
| crash | its process ends after training, before the reply: what it wrote to its vault stays | |
| nan, inf | one number of its update is not finite | |
| wrong_shape, wrong_keys | an array with another shape, or under another name | |
| scaled | its change, times a factor | 100 |
| sign_flip | its change, backwards | 1 |
| alie | A Little Is Enough (Baruch et al. 2019): mean - z std of the others' changes | z = 1 |
| ipm | inner-product manipulation (Xie et al. 2020): minus the others' mean change | 3 |
| label_flip | its labels are wrong, in training and validation | |
| count_inflation | it claims this many times its cases | 1000 |
| stale | it sends its first update again, as it was | |
| replay | it sends the arrays of its first update as an answer to this round | |
| duplicate | its reply comes twice | |

ALIE and inner-product manipulation know every honest update of the round, as the papers assume; attackers collude and
send the same. At seven centers the paper's z for two attackers is 0.25; the default of 1 is FEDERATION.md's.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from flwr.app import ConfigRecord, Message

from common.config.load import step_from_json
from common.config.options import NONE
from common.data.batch import Batch
from common.protocol.arrays import pack_state, unpack_state
from common.protocol.compression import applied, decode, difference, encode
from common.protocol.messages import Order, State
from common.protocol.wire import unpack_order
from common.seeding import seed_for
from simulations.virtual.fault_options import FACTORS, Fault
from simulations.virtual.local_grid import LocalGrid, WorkerLost, _answer

HORIZON_DAYS = 1825.0
ALSO_IN_VALIDATION = frozenset({"dropout", "straggler", "label_flip"})


class FaultyGrid(LocalGrid):
    """A LocalGrid in which a run's faults happen."""

    makes_faults = True

    def __init__(
        self,
        centers: Mapping[str, Path],
        *,
        workers: int,
        sizes: Mapping[str, int] | None = None,
        faults: Mapping[str, Fault],
        seed: int,
        frozen: Sequence[str] = (),
    ):
        super().__init__(centers, workers=workers, sizes=sizes, frozen=frozen)
        self.faults, self.seed = dict(sorted(faults.items())), seed
        self._first: dict[tuple[str, str], Message] = {}  # (step, center) -> its first update

    def _work(self, messages: list[Message], *, timeout: float | None) -> list[tuple[Message, Message]]:
        there = [message for message in messages if "dropout" not in self._kinds(message)]
        answered = super()._work(there, timeout=timeout)
        for sent, reply in answered:
            self._remember(sent, reply)
        honest = _Honest([(sent, reply) for sent, reply in answered if not self._lies(sent)])
        return [pair for sent, reply in answered for pair in self._tampered(sent, reply, honest)]

    def _job(self, message: Message, timeout: float | None) -> tuple[Callable[..., bytes], tuple[Any, ...]]:
        task, kinds = self._task(message), self._kinds(message)
        if "crash" in kinds:
            return _answer_and_die, task
        if "label_flip" in kinds:
            return _answer_flipped, task
        if "straggler" in kinds:
            return _answer_slowly, (_factor(kinds["straggler"]), timeout, *task)
        return _answer, task

    def _kinds(self, message: Message) -> dict[str, Fault]:
        """What befalls a center over a message: kind -> fault."""
        found: dict[str, Fault] = {}
        kind, config = message.metadata.message_type, message.content.config_records.get("config")
        if config is None or kind not in ("train", "evaluate") or (kind == "evaluate") != bool(config["subset"]):
            return found
        step, number = step_from_json(str(config["step"])).name, int(config["round"])  # type: ignore[arg-type]
        center = self._codes[message.metadata.dst_node_id]
        if number < 1 or config["subset"] == "test":
            return found
        for name, fault in self.faults.items():
            concerns = _names(center, fault.centers) and _names(step, fault.steps)
            due = not fault.rounds or number in fault.rounds
            if concerns and due and (kind == "train" or fault.kind in ALSO_IN_VALIDATION):
                drawn = random.Random(seed_for(self.seed, "fault", name, step, number, center)).random()
                if drawn < fault.probability:
                    found.setdefault(fault.kind, fault)
        return found

    def _lies(self, message: Message) -> bool:
        return bool(set(self._kinds(message)) & set(TAMPER))

    def _remember(self, sent: Message, reply: Message) -> None:
        if sent.metadata.message_type == "train" and not reply.has_error():
            step = step_from_json(str(sent.content.config_records["config"]["step"])).name
            self._first.setdefault((step, self._codes[sent.metadata.dst_node_id]), reply)

    def _tampered(self, sent: Message, reply: Message, honest: _Honest) -> Iterator[tuple[Message, Message]]:
        kinds = {} if reply.has_error() else self._kinds(sent)
        if kinds and reply.content.config_records["status"]["code"] == "ok":
            order = unpack_order(sent.content)
            first = self._first.get((order.step.name, self._codes[sent.metadata.dst_node_id]), reply)
            for kind, fault in kinds.items():
                if kind in TAMPER:
                    TAMPER[kind](_Lie(reply, order, fault, honest, first))
        yield sent, reply
        if "duplicate" in kinds:
            yield sent, reply


@dataclass
class _Honest:
    """The round's honest answers, decoded only where an attacker asks."""

    answers: list[tuple[Message, Message]]

    def changes(self) -> list[State]:
        """Every honest center's change."""
        usable = [
            (unpack_order(sent.content), reply)
            for sent, reply in self.answers
            if not reply.has_error() and reply.content.config_records["status"]["code"] == "ok"
        ]
        return [_change(order, reply) for order, reply in usable]


@dataclass
class _Lie:
    """One reply that is to be changed in place."""

    reply: Message
    order: Order
    fault: Fault
    honest: _Honest
    first: Message

    @property
    def factor(self) -> float:
        """How much."""
        return _factor(self.fault)

    def set_arrays(self, change: Callable[[State], State]) -> None:
        """Replace the arrays as they travel."""
        arrays = unpack_state(self.reply.content.array_records["arrays"])
        self.reply.content["arrays"] = pack_state(change(arrays))

    def set_change(self, new: State) -> None:
        """Replace the center's change by another one with the same names."""
        spec = self.order.step.federation.compression
        if spec.kind == NONE:
            self.set_arrays(lambda arrays: {**arrays, **applied({n: self.order.state[n] for n in new}, new)})
        else:
            self.set_arrays(lambda arrays: {**arrays, **encode(new, spec)})

    def set_status(self, **values: Any) -> None:
        """Replace entries of the status."""
        self.reply.content["status"] = ConfigRecord({**self.reply.content.config_records["status"], **values})


def _factor(fault: Fault) -> float:
    return FACTORS.get(fault.kind, 1.0) if fault.factor is None else fault.factor


def _names(name: str, wanted: list[str]) -> bool:
    return name in wanted or "*" in wanted


def _change(order: Order, reply: Message) -> State:
    """new - start of a training reply; what stands beside the state is left out."""
    arrays = unpack_state(reply.content.array_records["arrays"])
    spec = order.step.federation.compression
    if spec.kind == NONE:
        own = {n: t for n, t in arrays.items() if n in order.state}
        return difference(own, {n: order.state[n] for n in own})
    return decode(arrays, {n: t.float() for n, t in arrays.items() if ":" not in n}, spec)


# ------------------------------------------------------------------------------------------------ changes to a reply


def _spoil(value: float) -> Callable[[_Lie], None]:
    def spoil(lie: _Lie) -> None:
        def one_number(arrays: State) -> State:
            name = next(n for n in sorted(arrays) if arrays[n].is_floating_point() and arrays[n].numel())
            spoiled = arrays[name].clone()
            spoiled.view(-1)[-1] = value
            return {**arrays, name: spoiled}

        lie.set_arrays(one_number)

    return spoil


def _wrong_shape(lie: _Lie) -> None:
    lie.set_arrays(lambda arrays: {n: t[None] if n == min(arrays) else t for n, t in arrays.items()})


def _wrong_keys(lie: _Lie) -> None:
    lie.set_arrays(lambda arrays: {f"{n}x" if n == min(arrays) else n: t for n, t in arrays.items()})


def _multiplied(sign: float) -> Callable[[_Lie], None]:
    def multiply(lie: _Lie) -> None:
        lie.set_change({n: sign * lie.factor * t for n, t in _change(lie.order, lie.reply).items()})

    return multiply


def _alie(lie: _Lie) -> None:
    """mean - z std, coordinate by coordinate; without an honest neighbor there is nothing to hide among."""
    others, own = lie.honest.changes(), _change(lie.order, lie.reply)
    stacks = {n: torch.stack([o[n] for o in others if n in o]) for n in own if any(n in o for o in others)}
    lie.set_change({n: s.mean(dim=0) - lie.factor * s.std(dim=0, correction=0) for n, s in stacks.items()})


def _ipm(lie: _Lie) -> None:
    others, own = lie.honest.changes(), _change(lie.order, lie.reply)
    stacks = {n: torch.stack([o[n] for o in others if n in o]) for n in own if any(n in o for o in others)}
    lie.set_change({n: -lie.factor * s.mean(dim=0) for n, s in stacks.items()})


def _inflate(lie: _Lie) -> None:
    cases = int(lie.reply.content.config_records["status"]["cases"])  # type: ignore[arg-type]
    lie.set_status(cases=int(cases * lie.factor))


def _stale(lie: _Lie) -> None:
    for name in ("arrays", "sums", "status"):
        lie.reply.content[name] = lie.first.content[name]


def _replay(lie: _Lie) -> None:
    lie.reply.content["arrays"] = lie.first.content["arrays"]


TAMPER: dict[str, Callable[[_Lie], None]] = {
    "alie": _alie,
    "count_inflation": _inflate,
    "inf": _spoil(float("inf")),
    "ipm": _ipm,
    "nan": _spoil(float("nan")),
    "replay": _replay,
    "scaled": _multiplied(1.0),
    "sign_flip": _multiplied(-1.0),
    "stale": _stale,
    "wrong_keys": _wrong_keys,
    "wrong_shape": _wrong_shape,
}


# --------------------------------------------------------------------------------------------------- inside a worker


def _answer_and_die(*task: Any) -> bytes:
    """What the training left in the vault stays; the reply never leaves."""
    _answer(*task)
    if multiprocessing.parent_process() is None:  # nobody's worker: the whole simulation would end
        raise WorkerLost
    os._exit(1)


def _answer_slowly(factor: float, timeout: float | None, *task: Any) -> bytes:
    started = time.monotonic()
    answer = _answer(*task)
    spent = time.monotonic() - started
    rest = (factor - 1) * spent
    if multiprocessing.parent_process() is None and timeout is not None:  # later than late is no different
        rest = min(rest, max(0.0, timeout - spent) + 0.01)
    time.sleep(rest)
    return answer


def _answer_flipped(*task: Any) -> bytes:
    with flipped_labels():
        return _answer(*task)


@contextlib.contextmanager
def flipped_labels() -> Iterator[None]:
    """Every batch that this process makes has wrong labels: tumour where there is none, relapse where none was."""
    from client.data.dataset import CaseSet

    whole = CaseSet.collate

    def collate(self: CaseSet, *args: Any, **options: Any) -> Batch:
        batch = whole(self, *args, **options)
        return replace(batch, target=flipped(batch.target))

    with mock.patch.object(CaseSet, "collate", collate):
        yield


def flipped(target: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A target turned into its opposite; what is not known here stays."""
    new = dict(target)
    if "mask" in target:
        new["mask"] = (target["mask"] == 0).to(target["mask"].dtype)
    if "event" in target:
        new["event"] = 1 - target["event"]
        new["days"] = (HORIZON_DAYS - target["days"]).clamp(min=1.0)
    if "labels" in target:
        new["labels"] = 1 - target["labels"]
    return new
