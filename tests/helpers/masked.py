"""Seven centers that answer at once, summed securely over real messages: no data, no model, every phase of the sum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from flwr.app import Message
from omegaconf import OmegaConf

from client.app import Verbs
from client.center.center import Center
from client.center.config import CenterConfig
from client.masking.replies import answer, check_masked, check_scorable, under_masks
from client.node.keys import make_keys
from client.policy import Policy
from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.privacy.masking.asked import MASK
from common.protocol.masked import masked_form, phase_form, scoring_layout, training_layout
from common.protocol.messages import Order, Reply, State
from common.tasks import build_task
from server.centers.federation import Federation
from server.learning.strategy import AdapterStrategy
from server.masking.rounds import train_securely, validate_securely
from tests.helpers.small import OPEN, small_run, tampering

SEVEN = tuple(f"H{number}" for number in range(7))
CASES = dict(zip(SEVEN, (18, 55, 72, 198, 30, 41, 500), strict=True))
START = {"decoder/a": torch.linspace(-1, 1, 12).reshape(3, 4), "decoder/b": torch.zeros(5)}


def give_keys(files: Mapping[str, Path], keys: Path) -> None:
    """Make each center's key, and have its ``center.yaml`` name it and everybody's public ones."""
    for code, path in files.items():
        make_keys(keys / code, comment=code)
        text = path.read_text().replace("key: ''", f"key: {keys / code}")
        path.write_text(text.replace("partners: ''", f"partners: {keys}"))


def write_seven(folder: Path, codes=SEVEN, **policy) -> dict[str, Path]:
    """A ``center.yaml`` for each, with its key and everybody's public ones."""
    files = {}
    for code in codes:
        keys = folder / "keys"
        make_keys(keys / code, comment=code)
        config = CenterConfig(
            code, str(folder), vault=str(folder / ".vault"), key=str(keys / code), partners=str(keys),
            policy=Policy(**{**OPEN, **policy}),
        )  # fmt: skip
        files[code] = folder / f"{code}.yaml"
        files[code].write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
    return files


def secure_step(**federation) -> Step:
    """A segmentation's step whose updates and scores are summed securely, by cases."""
    step = small_run(steps=["tumour_ct"]).steps["tumour_ct"]
    step.federation.guards.norm_factor = 0.0
    step.federation = replace(step.federation, secure_aggregation=True, weighting="n", **federation)
    return step


def update_of(code: str, start: State, number: int) -> State:
    """What a center learns: its own, another in each round."""
    rng = np.random.default_rng([number, sum(code.encode())])
    return {n: t + torch.from_numpy(rng.normal(0, 0.01, tuple(t.shape)).astype(np.float32)) for n, t in start.items()}


def trained(center: Center, order: Order) -> Reply:
    """An update at once, under masks where the step has them."""
    check_masked(order)
    state = update_of(center.code, order.state, order.round)
    cases = CASES[center.code]
    sums = {"fit.loss": np.array(0.5 * cases), "fit.cases": np.array(float(cases)), "fit.batches": np.array(3.0)}
    reply = Reply(center.code, state=state, sums=sums, counts={"cases": cases, "batches": 3, "skipped": 0}, seconds=1.0)
    return under_masks(center.config, center.vault, order, reply, training_layout(order, order.state))


def scored(center: Center, order: Order) -> Reply:
    """One and the same value for every declared sum."""
    check_masked(order)
    layout = scoring_layout(order)
    sums = {name: np.zeros(shape) for name, shape in layout.sums} | {"fit.cases": np.array(2.0)}
    sums["fit.loss"] = np.array(float(CASES[center.code]) / 100)
    reply = Reply(center.code, sums=sums, counts={"cases": 2, "skipped": 0})
    return under_masks(center.config, center.vault, order, reply, layout)


def declared(center: Center, order: Order) -> tuple[State, State]:
    """What a center may let out."""
    if order.masking is None:
        return order.state, {}
    if order.masking.phase != MASK:
        return {}, phase_form(order.masking)
    return {}, masked_form(scoring_layout(order) if order.subset else training_layout(order, order.state))


def in_phase(center: Center, order: Order) -> Reply:
    """A phase in which no patient is looked at; who has few patients, says so before a sum of scores."""
    check_scorable(order, cases=lambda: FEW.get(center.code, 5), minimum=5)
    return answer(center.config, center.vault, order)


FEW: dict[str, int] = {}  # center -> patients to score, where a test has few of them
VERBS = Verbs(train=trained, evaluate=scored, masking=in_phase, declared=declared)


def phase_of(message: Message) -> str:
    """The phase of a secure sum that a message is."""
    config = message.content.config_records["config"]
    return json.loads(str(config["masking"]))["phase"] if "masking" in config else ""


class Seven:
    """Seven such centers, a strategy and a door to them."""

    def __init__(self, files: Mapping[str, Path], *, step: Step | None = None, tamper=None, before=None, run="ab"):
        grid_class = tampering(tamper)
        if before is not None:
            work = grid_class._work
            grid_class._work = lambda grid, messages, *, timeout: work(grid, before(messages), timeout=timeout)
        self.grid = grid_class(files, workers=0, verbs=VERBS)
        self.seen = grid_class.seen
        self.federation = Federation(self.grid, patience_s=0.0)
        self.federation.nodes = dict(self.grid.enrolled())
        step = step or secure_step()
        order = Order(step, 1, 0, BackboneSpec(kind="tiny"), "base", Split(), state=dict(START), run=run)
        nodes = {code: self.federation.nodes[code] for code in files}
        cases = {code: CASES[code] for code in files}
        self.task = build_task(step.task)
        self.strategy = AdapterStrategy(order, nodes=nodes, cases=cases, task=self.task, validation=cases)

    def _deliver(self, messages):
        names = {node: center for center, node in self.strategy.nodes.items()}
        return self.federation.deliver(messages, names=names, timeout_s=60.0)

    def train(self, number: int = 1, state: State | None = None) -> State | None:
        """A round's new state."""
        return train_securely(self.federation, self.strategy, number, state or dict(START), self._deliver)[1]

    def validate(self, number: int = 1):
        """A round's validation."""
        return validate_securely(self.federation, self.strategy, self.task, number, dict(START), self._deliver)[1]


def plain_mean(codes, *, number: int = 1, start: State = START) -> State:
    """The weighted mean of what centers learn, as the rule ``mean`` has it."""
    total = sum(CASES[code] for code in codes)
    moved = {c: update_of(c, start, number) for c in codes}
    return {n: sum(CASES[c] * (moved[c][n] - t).double() for c in codes) / total + t for n, t in start.items()}


def distance(a: State, b: State, start: State = START) -> float:
    """How far two states are apart, over the length of the second one's update."""
    apart = sum(float((a[n].double() - b[n]).square().sum()) for n in start)
    moved = sum(float((b[n].double() - start[n]).square().sum()) for n in start)
    return (apart / moved) ** 0.5
