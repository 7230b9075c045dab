"""After an erasure exact sums wait until the difference suffices, while training goes on: over the hospital's messages.

The hospital has a minimum of 5, as by default; what it answers is seen as the coordinator sees it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from flwr.app import Context, Message, RecordDict

from client.app import app
from client.center.center import Center
from client.center.models import initial_state
from client.commands.erase import erase
from client.privacy.record import read_record
from client.vault.cohort import read_cohort
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.run import Split
from common.protocol.messages import Order, Reply
from common.protocol.wire import pack_order, unpack_reply
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.small import VIEW, forget, small_run, write_centers, write_cohort

MINIMUM = 5


@pytest.fixture
def root(tmp_path):
    return write_cohort(tmp_path / "cohort", {"CHUP": 24})


@pytest.fixture
def hospital(tmp_path, root):
    LocalGrid({}, workers=0).close()
    forget()
    floor = {"minimum_cell": MINIMUM, "minimum_cases": MINIMUM}
    return write_centers(tmp_path / "hospital", root, ["CHUP"], **floor)["CHUP"]


def order_for(hospital, run, name) -> Order:
    step = (run.steps | run.controls)[name]
    step.view = VIEW
    base = backbone_digest(load_backbone(run.backbone))
    order = Order(step, 1, 0, run.backbone, base, Split(folds=3, validation=0.0), run="ab" * 32)
    return replace(order, state=initial_state(Center.open(hospital).config, order))


def sums_order(hospital) -> Order:
    run = compose_run(["curriculum=exact", "backbone=tiny", "name=erasure"])
    return order_for(hospital, run, "relapse_exact")


def train_order(hospital) -> Order:
    return replace(order_for(hospital, small_run(steps=["tumour_ct"], rounds=1), "tumour_ct"), round=1)


def answered(hospital, order: Order, kind: str) -> Reply:
    context = Context(run_id=1, node_id=7, node_config={"center": str(hospital)}, state=RecordDict(), run_config={})
    return unpack_reply(app(Message(pack_order(order), dst_node_id=7, message_type=kind), context).content)


def test_sums_wait_after_an_erasure_and_training_goes_on(hospital, root):
    order = sums_order(hospital)
    assert answered(hospital, order, "query.sums").code == "ok"
    [before] = read_record(Center.open(hospital).vault).answered
    gone = Center.open(hospital).part(order, "train")[0].patient
    erase(Center.open(hospital), gone)

    refused = answered(hospital, order, "query.sums")
    assert refused.code == "declined.difference" and not refused.sums and not refused.state
    assert answered(hospital, order, "query.sums").code == "declined.difference", "asked again, it stays so"
    trained = answered(hospital, train_order(hospital), "train")
    assert trained.code == "ok" and trained.state and trained.counts["cases"] >= MINIMUM

    write_cohort(root, {"CHUP": 26})  # one or two more for training: too few
    forget()
    assert answered(hospital, order, "query.sums").code == "declined.difference"
    write_cohort(root, {"CHUP": 40})
    forget()
    again = answered(hospital, order, "query.sums")
    assert again.code == "ok" and again.counts["cases"] > len(before.patients)
    vault = Center.open(hospital).vault
    last = read_record(vault).answered[-1]
    [erased] = read_cohort(vault).erased
    assert erased in before.patients and erased not in last.patients
    assert len(last.patients ^ before.patients) >= MINIMUM
    assert answered(hospital, order, "query.sums").sums.keys() == again.sums.keys(), "and the same again, always"


def test_an_erased_test_patient_leaves_exact_sums_alone_and_scores_wait(hospital):
    order = sums_order(hospital)
    scoring = replace(train_order(hospital), subset="test")
    assert answered(hospital, order, "query.sums").code == "ok"
    assert "dice_sum" in answered(hospital, scoring, "evaluate").sums
    erase(Center.open(hospital), Center.open(hospital).part(order, "test")[0].patient)
    assert answered(hospital, order, "query.sums").code == "ok", "its sums are over the same patients as before"
    waiting = answered(hospital, scoring, "evaluate")
    assert waiting.code == "ok" and not waiting.sums and waiting.counts["suppressed"] == 1


def test_a_list_of_erased_that_was_cut_stops_every_message(hospital):
    order = sums_order(hospital)
    answered(hospital, order, "query.describe")
    center = Center.open(hospital)
    erase(center, center.part(order, "train")[0].patient)
    path = center.vault / "cohort.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged in (b"".join(lines[:-1]), b"".join(lines[:-2]), whole.replace(b'"erased"', b'"eraser"')):
        path.write_bytes(damaged)
        forget()
        for kind, asked in (
            ("query.describe", order),
            ("query.sums", order),
            ("train", train_order_of(order, hospital)),
        ):
            assert answered(hospital, asked, kind).code == "vault"
    path.write_bytes(whole)
    forget()
    assert answered(hospital, order, "query.describe").code == "ok"


def train_order_of(order: Order, hospital) -> Order:
    step = small_run(steps=["tumour_ct"], rounds=1).steps["tumour_ct"]
    asked = replace(order, step=step, round=1)
    return replace(asked, state=initial_state(Center.open(hospital).config, asked))
