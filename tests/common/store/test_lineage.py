"""A task of a shared lineage is read with what its lineage has learned since, and with its own way of reading out."""

import pytest
import torch

from common.config.adapter import Adapter, DecoderPart, LoraPart
from common.config.step import Step
from common.config.task import ClassificationTask, SegmentationTask
from common.store.bank import AdapterBank
from common.store.lineage import parts_in_use, shared_parts, state_in_use


def step(name, task, *, rank=8, decoder=False):
    parts = {"within": LoraPart(rank=rank)} | ({"decoder": DecoderPart()} if decoder else {})
    return Step(name=name, task=task, adapter=Adapter(parts), writes="shared")


def state(value, *, head=True, decoder=False, rank=8):
    found = {"within/a": torch.full((rank, 2), value)}
    found |= {"head/w": torch.full((3,), value)} if head else {}
    return found | ({"decoder/w": torch.full((2,), value)} if decoder else {})


@pytest.fixture
def bank(tmp_path):
    return AdapterBank(tmp_path)


def committed(bank, *steps):
    """Keys of steps that are learned one after another, each from the one before."""
    keys: list[str] = []
    for one, made in steps:
        keys.append(bank.commit(one, made, base="base", parents=keys[-1:]).key)
    return keys


HPV, STAGE = ClassificationTask(target="hpv", classes=["hpv"]), ClassificationTask(target="t_stage", classes=["T4"])


def test_alone_in_its_lineage_a_task_is_its_head_bit_for_bit(bank):
    first, second = committed(bank, (step("a", HPV), state(1.0)), (step("a", HPV), state(2.0)))
    now = state_in_use(bank, head=second, own=first)
    assert all(torch.equal(now[name], tensor) for name, tensor in bank.get(second).items())
    assert shared_parts(bank, head=first, own=first) == []


def test_tasks_share_the_parts_inside_and_own_what_reads_out(bank):
    first, second = committed(bank, (step("a", HPV), state(1.0)), (step("b", STAGE), state(2.0)))
    assert parts_in_use(bank, head=second, own=first) == {"head": first, "within": second}
    now = state_in_use(bank, head=second, own=first)
    assert now["within/a"][0, 0] == 2.0 and now["head/w"][0] == 1.0
    assert shared_parts(bank, head=second, own=first) == ["within"]


def test_a_decoder_is_shared_for_the_same_structures_only(bank):
    tumor, organ = SegmentationTask(structures=["GTVp"]), SegmentationTask(structures=["Heart"])
    keys = committed(
        bank,
        (step("a", tumor, decoder=True), state(1.0, head=False, decoder=True)),
        (step("b", tumor, decoder=True), state(2.0, head=False, decoder=True)),
        (step("c", organ, decoder=True), state(3.0, head=False, decoder=True)),
    )
    assert parts_in_use(bank, head=keys[2], own=keys[0]) == {"decoder": keys[1], "within": keys[2]}


def test_a_part_of_another_form_or_with_other_options_is_not_shared(bank):
    other = step("c", HPV)
    other.adapter.parts["within"].alpha = 1.0
    keys = committed(
        bank, (step("a", HPV), state(1.0)), (step("b", HPV, rank=4), state(2.0, rank=4)), (other, state(3.0))
    )
    assert parts_in_use(bank, head=keys[2], own=keys[0]) == {"head": keys[2], "within": keys[0]}


def test_a_head_that_was_taken_back_takes_what_was_shared_back_with_it(bank):
    first, second = committed(bank, (step("a", HPV), state(1.0)), (step("b", STAGE), state(2.0)))
    bank.promote("shared", first)
    assert parts_in_use(bank, head=first, own=second) == {"head": second, "within": first}


def test_a_lineage_ends_where_another_begins(bank):
    elsewhere = step("a", HPV)
    elsewhere.writes = None
    first, second = committed(bank, (elsewhere, state(1.0)), (step("b", HPV), state(2.0)))
    assert parts_in_use(bank, head=second, own=second) == {"head": second, "within": second}
    assert parts_in_use(bank, head=first, own=first) == {"head": first, "within": first}
