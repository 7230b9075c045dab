"""Words stay at a center: whatever its reports say, nothing that it sends tells which words occur there."""

import copy

import pytest
import torch

from client.center.center import Center
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.methods import WORDS
from common.config.methods.drift import LocalMethod
from common.model.adapted import AdaptedModel
from common.protocol.declaration import made_from_seed
from common.protocol.messages import Order
from tests.helpers.small import VIEW, forget, write_centers, write_cohort

TABLES = {"words", "word_positions"}
OTHER_WORDS = {",80,,0,1.0,": ",80,1,1,,", ",M,": ",F,"}  # smokers, drinkers, no performance status, women


@pytest.fixture(scope="module")
def centers(tmp_path_factory):
    """One hospital twice: the same patients, described in other words."""
    found = []
    for name, changes in (("some", {}), ("others", OTHER_WORDS)):
        root = write_cohort(tmp_path_factory.mktemp(name), {"CHUM": 6})
        table = root / "hecktor2022_clinical_info_training.csv"
        text = table.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        table.write_text(text)
        found.append(write_centers(root / "centers", root, ["CHUM"])["CHUM"])
    return found


def order_of(*methods, part="encoder") -> Order:
    run = compose_run(["curriculum=medcoss", f"adapter@steps.stage_reports.adapter={part}"])
    step = copy.deepcopy(run.steps["stage_reports"])
    step.view, step.methods, step.training.epochs = copy.deepcopy(VIEW), list(methods), 2
    run.data.split.folds, run.data.split.validation = 3, 0.34
    backbone = load_backbone(run.backbone)
    state = AdaptedModel(backbone, step, seed=1).state()
    return Order(step, 1, 1, run.backbone, backbone_digest(backbone), run.data.split, state=state, run="a" * 8)


def words_of(center: Center, order: Order) -> set[int]:
    model, _ = center.model(order)
    [batch] = center.case_set(order, "train", model).all(99)
    return set(batch.inputs["EHR"].unique().tolist())


@pytest.mark.parametrize("part", ["encoder", "lora_image"])
def test_other_words_change_no_zero_of_what_is_sent(centers, part):
    order = order_of(part=part)
    here, there = (Center.open(path) for path in centers)
    one, other = words_of(here, order), words_of(there, order)
    assert one - other and other - one
    patterns = []
    for center in (here, there):
        forget()
        reply = center.train(order)
        declared, extra = center.declared(order)
        assert set(reply.state) == set(declared) and not reply.extra and not extra
        assert not [
            name for name in declared if name.startswith(WORDS) or TABLES & {*name.partition("/")[2].split(".")}
        ]
        patterns.append({name: tensor - order.state[name] == 0 for name, tensor in reply.state.items()})
    assert all(torch.equal(patterns[0][name], patterns[1][name]) for name in patterns[0])
    assert any(not pattern.all() for pattern in patterns[0].values())


def test_the_head_of_words_is_the_centers_own_and_never_the_coordinators(centers):
    order = order_of(LocalMethod(["*norm1*"]))
    center = Center.open(centers[0])
    forget()
    center.train(order)
    own = center.own_state(Order(**{**vars(order), "since": 1}))
    head = [name for name in own if name.startswith(WORDS)]
    assert head and all(not torch.equal(own[name], order.state[name]) for name in head if name.endswith("weight"))
    assert set(head) <= set(made_from_seed(order.state, order.state, order.step))
