"""Every byte that crosses in a whole run is declared: adapter arrays, sums, status codes, and nothing of a patient."""

import re

import pytest
from flwr.common.serde import message_to_proto

from common.protocol.declaration import sent_back
from common.protocol.wire import STATUS_COUNTS, declared_sums, unpack_order
from common.tasks import build_task
from tests.helpers.small import asked, code_of, federate, small_run, tampering

CENTERS = ["CHUM", "CHUP", "MDA"]
PATIENT = re.compile(rb"(CHUM|CHUP|MDA|HMR)[-_]?\d{2,}")
# Words long enough not to stand by chance among the bytes of a few MB of weights.
PRIVATE = (
    b"imagesTr",
    b".nii.",
    b".csv\n",
    b"year old",
    b"tobacco",
    b"hpv positive",
    b"hpv negative",
    b"/tmp/",
    b"Traceback",
)


@pytest.fixture(scope="module")
def crossing(tmp_path_factory, small_centers):
    """Every (order, reply) of a run with an image task, a new modality and a task that reads reports."""
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet", "relapse"], rounds=1)
    grid = tampering()
    federate(run, tmp_path_factory.mktemp("crossing"), small_centers, grid=grid)
    assert {asked(sent)[0] for sent, _ in grid.seen} == {"query.describe", "train", "evaluate"}
    return grid.seen


def test_replies_hold_three_records_and_nothing_else(crossing):
    for sent, reply in crossing:
        assert set(reply.content) == {"arrays", "sums", "status"} and not reply.has_error()
        assert set(reply.content["status"]) <= {"center", "code", "order", "round", "seconds", *STATUS_COUNTS}
        assert set(sent.content) == {"arrays", "config", "known"}


def test_every_array_is_an_adapter_tensor_that_the_server_sent(crossing):
    for sent, reply in crossing:
        arrays = reply.content.array_records["arrays"]
        offered = sent.content.array_records["arrays"]
        if asked(sent)[0] != "train":
            assert len(arrays) == 0
            continue
        order = unpack_order(sent.content)
        expected = sent_back(
            offered, order.step, round=order.round
        )  # of LoRA's factors only those that the round trains
        assert {n: (a.dtype, a.shape) for n, a in arrays.items()} == {
            n: (a.dtype, a.shape) for n, a in offered.items() if n in expected
        }


def test_every_sum_is_declared_by_the_step(crossing):
    names = set()
    for sent, reply in crossing:
        order = unpack_order(sent.content)
        task = build_task(order.step.task)
        described = asked(sent)[0] == "query.describe"
        declared = task.label_shapes if described else declared_sums(task, curves=order.wants_curves)
        for name, array in reply.content.array_records["sums"].items():
            assert tuple(array.shape) == declared[name]
            names.add(name)
    assert {"fit.loss", "intersection", "concordant", "km_at_risk", "censoring_at_risk"} <= names


def test_no_array_grows_with_the_number_of_cases(crossing):
    """Centers differ in their number of cases in every split together, yet send the same shapes."""
    kinds = {}
    for sent, reply in crossing:
        shapes = {
            (record, name, tuple(array.shape))
            for record in ("arrays", "sums")
            for name, array in reply.content.array_records[record].items()
        }
        step = unpack_order(sent.content).step.name
        question = (
            step,
            *asked(sent),
            sent.content.config_records["config"]["subset"],
            "threshold" in sent.content["config"],
        )
        kinds.setdefault(question, {}).setdefault(frozenset(shapes), set()).add(code_of(reply))
    assert len(kinds) >= 9
    assert all(len(by_shapes) == 1 for by_shapes in kinds.values()), "centers of different size send the same shapes"


def test_no_message_names_a_patient_a_file_or_a_record(crossing):
    for pair in crossing:
        for message in pair:
            content = message_to_proto(message).SerializeToString()
            assert not PATIENT.search(content) and [word for word in PRIVATE if word in content] == []


def test_results_of_few_cases_do_not_leave(tmp_path, small_centers):
    run = small_run(centers=CENTERS, steps=["tumour_ct"], rounds=1)
    run.data.minimum_cell = 2
    grid = tampering()
    leader = federate(run, tmp_path, small_centers, grid=grid)
    suppressed = {code_of(reply) for _, reply in grid.seen if reply.content.config_records["status"].get("suppressed")}
    assert suppressed == {"CHUP"}  # its test split holds one case
    rows = [r for r in leader.ledger.events("step_finished")[0]["scores"] if r["metric"] == "dsc_agg"]
    assert {r["center"]: r["n"] for r in rows} == {"CHUM": 2, "MDA": 3, "CHUP": None, "pooled": 5}
