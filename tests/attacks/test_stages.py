"""Every stage that a hospital must not take in as it stands: a code, nothing of it in the vault, the base as it was."""

from dataclasses import replace

import pytest
import torch

from client.center.config import read_config
from client.center.models import bases_of
from common.backbones import backbone_digest
from common.backbones.base import tensors_digest
from common.backbones.tiny import TinyBackbone
from common.config.adapter import FullPart, LoraPart
from common.protocol.messages import STAGE, Order
from common.store.bank import AdapterBank
from common.store.bases import Bases
from simulations.virtual.local_grid import LocalGrid
from tests.common.model.test_merging import trained
from tests.helpers.actions import answered, run_of
from tests.helpers.small import write_centers


@pytest.fixture(scope="module", autouse=True)
def in_a_run():
    """Flower's messages belong to one."""
    LocalGrid({}, workers=0).close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """An honest stage, as a server sends it."""
    return an_order(tmp_path_factory.mktemp("server"), LoraPart(sites=["image_attention"], rank=2))


def an_order(folder, part):
    run, root = run_of("relapse"), TinyBackbone(0).freeze()
    step = run.steps["relapse"]
    step = replace(step, adapter=replace(step.adapter, parts={**step.adapter.parts, "within": part}))
    bases, state, base = Bases(AdapterBank(folder)), trained(step), backbone_digest(root)
    entry = bases.bank.commit(step, state, base=base)
    grown, _ = bases.grow(base, root, entry.key, root=base)
    order = Order(step, run.seed, 0, run.backbone, base, run.data.split, state=state, run="ab" * 16)
    return replace(order, stage=entry.key, grown=grown)


@pytest.fixture
def hospital(tmp_path, small_root):
    return write_centers(tmp_path, small_root, ["CHUP"], parts=[])["CHUP"]


def test_an_honest_stage_is_taken_in_and_answered_by_a_code_alone(hospital, stage):
    reply = answered(hospital, stage, STAGE)
    assert reply.code == "ok" and not (reply.state or reply.sums or reply.counts or reply.extra)
    assert list(bases_of(read_config(hospital)).known()) == [stage.grown]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda order: replace(order, stage="0" * 64), "bank"),
        (lambda order: replace(order, state={n: t + 1 for n, t in order.state.items()}), "bank"),
        (lambda order: replace(order, parents=["0" * 64]), "bank"),
        (lambda order: replace(order, stage="../../cohort"), "wire"),
        (lambda order: replace(order, grown="../../cohort"), "wire"),
        (lambda order: replace(order, merged=["../../cohort"], root=order.base), "wire"),
        (lambda order: replace(order, state={n: t * torch.nan for n, t in order.state.items()}), "wire"),
        (lambda order: replace(order, base="1" * 64), "declined.base_mismatch"),
        (lambda order: replace(order, base="1" * 64, root="2" * 64), "declined.base_mismatch"),
        (lambda order: replace(order, base="1" * 64, root=order.base, merged=["3" * 64]), "base_missing"),
    ],
)
def test_a_stage_that_is_not_what_it_says_is_a_code_and_leaves_nothing(hospital, stage, change, code):
    reply = answered(hospital, change(stage), STAGE)
    assert reply.code == code and not (reply.state or reply.sums or reply.counts or reply.extra)
    assert bases_of(read_config(hospital)).known() == {}


def test_a_stage_that_makes_another_digest_is_a_code_and_no_base_to_stand_on(hospital, stage):
    wrong = replace(stage, grown="1" * 64)
    assert answered(hospital, wrong, STAGE).code == "backbone"
    on_it = replace(stage, base="1" * 64, root=stage.base, merged=[stage.stage], stage="", grown="")
    assert answered(hospital, on_it, "query.describe").code == "backbone", "it is not sent the stages again"


def test_where_states_are_listed_a_stage_is_listed_too(stage, tmp_path, small_root):
    """Else what may not be a step's start would be merged under it."""
    for listed, code in (("1" * 64, "declined.initialisation"), (tensors_digest(stage.state), "ok")):
        file = write_centers(tmp_path / code, small_root, ["CHUP"], initialisations=[listed])["CHUP"]
        assert answered(file, stage, STAGE).code == code
        assert bool(bases_of(read_config(file)).known()) == (code == "ok")


def test_a_replacement_of_the_whole_model_needs_the_policys_word(hospital, tmp_path, small_root):
    order = an_order(tmp_path / "server", FullPart(tensors=["image_blocks.*"]))
    assert answered(hospital, order, STAGE).code == "declined.part"
    assert bases_of(read_config(hospital)).known() == {}
    allows = write_centers(tmp_path / "open", small_root, ["CHUP"], parts=["all"])["CHUP"]
    assert answered(allows, order, STAGE).code == "ok"
