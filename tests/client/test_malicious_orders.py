"""Orders of a malicious server, one by one: each ends at once with a code, nothing is opened, and the next is answered.

They travel as Flower messages to the hospital's own app, changed where no honest server could change them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from client.app import app
from common.backbones import backbone_digest, load_backbone
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, Reply
from common.protocol.wire import pack_order, unpack_reply
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.small import forget, small_run, write_centers

SOON_S = 5.0  # far above what a refusal takes, far below what the orders would
DECODER = {"kind": "decoder"}
SECRET = "FEDGRAFT_TEST_SECRET"


@pytest.fixture(scope="module")
def order() -> Order:
    run = small_run(steps=["tumour_ct"])
    backbone = load_backbone(run.backbone)
    state = AdaptedModel(backbone, run.steps["tumour_ct"], seed=1).state()
    step = run.steps["tumour_ct"]
    return Order(step, 1, 1, run.backbone, backbone_digest(backbone), run.data.split, state=state)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory, small_root):
    """A hospital with its default policy but for the few patients of the test."""
    LocalGrid({}, workers=0).close()
    own = {"federations": [], "parts": [], "minimum_batch": 2, "reach": 30.0}
    return write_centers(tmp_path_factory.mktemp("hospital"), small_root, ["CHUM"], **own)["CHUM"]


def answered(hospital, content: RecordDict, kind: str = "train") -> Reply:
    context = Context(run_id=1, node_id=7, node_config={"center": str(hospital)}, state=RecordDict(), run_config={})
    return unpack_reply(app(Message(content, dst_node_id=7, message_type=kind), context).content)


def in_step(**paths: Any) -> Callable[[RecordDict], None]:
    """Changes options of the step in its JSON: ``training__epochs=10**9``."""

    def change(content: RecordDict) -> None:
        config = content.config_records["config"]
        step = json.loads(str(config["step"]))
        for path, value in paths.items():
            *owners, name = path.split("__")
            owner = step
            for one in owners:
                owner = owner[one]
            owner[name] = value
        config["step"] = json.dumps(step)

    return change


def in_config(**values: Any) -> Callable[[RecordDict], None]:
    return lambda content: content.config_records["config"].update(values)


def in_split(**values: Any) -> Callable[[RecordDict], None]:
    return in_config(split=json.dumps({"seed": 0, "folds": 3, "fold": 0, "validation": 0.34} | values))


def part(**options: Any) -> Callable[[RecordDict], None]:
    return in_step(adapter={"parts": {"decoder": DECODER, "more": options}})


NAN = float("nan")
ORDERS: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "a billion epochs": (in_step(training__epochs=10**9), "config"),
    "epochs above the policy": (in_step(training__epochs=51), "declined.epochs"),
    "a pattern that takes exponential time": (part(kind="full", tensors=["(a+)+" * 20]), "declined.part"),
    "a pattern as it was": (part(kind="full", tensors="(a+)+b"), "config"),
    "100 000 structures": (in_step(task__structures=["a"] * 100_000), "config"),
    "a million classes": (in_step(task={"kind": "classification", "classes": ["a"] * 10**6}), "wire"),
    "a decoder of a million features": (part(kind="decoder", features=10**6), "config"),
    "rank a million": (part(kind="lora", rank=10**6), "config"),
    "rank a billion": (part(kind="lora", rank=10**9), "config"),
    "fusion a hundred million wide": (part(kind="fusion", width=10**8), "config"),
    "a hundred million bins": (in_step(task={"kind": "prognosis", "bins": 10**8}), "config"),
    "a view of 2000 cubed": (in_step(view__size=[2000] * 3), "config"),
    "voxels of a micrometer": (in_step(view__spacing_mm=[0.001] * 3), "config"),
    "spacing that is no number": (in_step(view__spacing_mm=[NAN] * 3), "config"),
    "no spacing": (in_step(view__spacing_mm=[0.0] * 3), "config"),
    "no window": (in_step(view__window=[0, 0, 0]), "config"),
    "an empty range of intensities": (in_step(view__ct_hu=[0.0, 0.0]), "config"),
    "batch minus one": (in_step(training__batch=-1), "config"),
    "batch zero": (in_step(training__batch=0), "config"),
    "batch one": (in_step(training__batch=1), "declined.batch"),
    "batch a billion": (in_step(training__batch=10**9), "config"),
    "a learning rate of 1e30": (in_step(training__learning_rate=1e30), "config"),
    "rounds above the policy": (in_step(rounds=1001), "declined.rounds"),
    "scaffold, a raw gradient": (in_step(federation={"kind": "scaffold"}), "declined.federation"),
    "an own encoder": (part(kind="full", tensors=["*"]), "declined.part"),
    "an own first layer": (
        in_step(modalities=["CT", "PET"], adapter={"parts": {"decoder": DECODER, "stem": {"kind": "patch_embed"}}}),
        "declined.part",
    ),
    "own positions": (part(kind="resolution"), "declined.part"),
    "a kind that names code": (part(kind="os.system"), "unknown"),
    "an option that names code": (in_step(import_from="os"), "unknown"),
    "a variable of the environment": (in_step(name="${oc.env:" + SECRET + "}"), "config"),
    "the same, of the frozen model": (in_config(backbone='{"config": "${oc.env:' + SECRET + '}"}'), "config"),
    "a name of 50 MB": (in_step(name="a" * 50_000_000), "wire"),
    "a name of 101 letters": (in_step(name="a" * 101), "config"),
    "JSON 100 000 deep": (in_config(step="[" * 100_000 + "]" * 100_000), "config"),
    "JSON 30 000 deep": (in_config(step="[" * 30_000 + "]" * 30_000), "config"),
    "a seed of letters": (in_config(seed="abc"), "wire"),
    "seed minus one": (in_config(seed=-1), "wire"),
    "a minimum of letters": (in_config(minimum_cell="x"), "wire"),
    "a round before the first": (in_config(round=-1), "wire"),
    "an id of a megabyte": (in_config(id="a" * 10**6), "wire"),
    "a subset that is a path": (in_config(subset="../../etc"), "wire"),
    "a threshold that is no number": (in_config(threshold=NAN), "wire"),
    "a reference that is a path": (in_config(reference="../../../etc/passwd"), "wire"),
    "another frozen model": (in_config(base="0" * 64), "declined.base_mismatch"),
    "no folds": (in_split(folds=0), "config"),
    "one fold": (in_split(folds=1), "config"),
    "a billion folds": (in_split(folds=10**9), "declined.split"),
    "fold 99 of 3": (in_split(fold=99), "config"),
    "fold a billion of a billion": (in_split(folds=10**9, fold=10**9 - 1), "declined.split"),
    "fold minus one": (in_split(fold=-1), "config"),
    "everybody validates": (in_split(validation=1.0), "config"),
    "a share that is no number": (in_split(validation=NAN), "config"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_it_ends_at_once_with_a_code(hospital, order, monkeypatch, caplog, name):
    forget()
    monkeypatch.setenv(SECRET, "of-the-hospital")
    change, code = ORDERS[name]
    content = pack_order(order)
    change(content)
    started = time.perf_counter()
    reply = answered(hospital, content)
    took = time.perf_counter() - started
    assert (reply.center, reply.code) == ("CHUM", code)
    assert took < SOON_S and not reply.state and not reply.sums and not reply.counts
    assert "of-the-hospital" not in caplog.text and max(map(len, caplog.messages)) < 2000


@pytest.mark.parametrize("path", ["absolute", "..", "symlink"])
@pytest.mark.parametrize("option", ["weights", "text_folder"])
def test_a_path_from_the_network_is_never_opened(tmp_path, small_root, order, caplog, option, path):
    """A named pipe would block whoever opens it."""
    forget()
    own = write_centers(tmp_path, small_root, ["CHUM"])["CHUM"]
    own.write_text(own.read_text().replace("server: ''", "server: coordinator:443"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    named = {"absolute": pipe, "..": Path(os.path.relpath(pipe)), "symlink": tmp_path / "link"}[path]
    content = pack_order(order)
    backbone = json.loads(str(content.config_records["config"]["backbone"])) | {option: str(named)}
    content.config_records["config"]["backbone"] = json.dumps(backbone)
    assert answered(own, content).code == "declined.weights"
    assert str(named) not in caplog.text and "center.yaml" in caplog.text


def test_the_honest_order_is_answered_after_all_of_them(hospital, order):
    forget()
    assert answered(hospital, pack_order(order)).code == "ok"


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_an_adapter_that_is_not_finite_is_not_trained(hospital, order, value):
    state = {name: torch.full_like(tensor, value) for name, tensor in order.state.items()}
    assert answered(hospital, pack_order(replace(order, state=state))).code == "wire"


def test_a_state_that_jumps_is_not_trained(hospital, order):
    forget()
    fresh = replace(order, run="jumps")
    assert answered(hospital, pack_order(fresh)).code == "ok"
    state = {name: tensor + 100 for name, tensor in order.state.items()}
    assert answered(hospital, pack_order(replace(fresh, round=2, state=state))).code == "declined.initialisation"
    assert answered(hospital, pack_order(replace(fresh, round=2))).code == "ok"


def test_a_negative_minimum_lowers_nothing(hospital, order):
    forget()
    lowered = replace(order, minimum_cell=-(10**9), subset="test")
    assert answered(hospital, pack_order(lowered), "evaluate").code == "ok"
