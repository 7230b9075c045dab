"""MedCoSS at a center: equal models teach nothing, small sites rehearse, and only hashes are kept of whom."""

import copy
from dataclasses import replace

import pytest
import torch

from client.center.center import Center
from client.methods.stages.medcoss import StageProblem, distilled, earlier_stage
from client.vault.cohort import hashed_id, read_cohort
from client.vault.memory import forget_patient
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.methods.continual import MedcossMethod
from common.data.sources import source_of
from common.model.adapted import AdaptedModel
from common.model.masking import as_form, drawn_noise, hide
from common.protocol.messages import Order
from common.store.sealed import read_sealed
from server.methods import brought
from server.methods.base import Begun
from tests.helpers.small import VIEW, forget, write_centers, write_cohort

STAGES = ["EHR", "CT:slices"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = write_cohort(tmp_path_factory.mktemp("cohort"), {"CHUM": 6, "MDA": 7})
    return write_centers(root / "centers", root, ["CHUM", "MDA"])


@pytest.fixture(scope="module")
def run():
    return compose_run(["curriculum=medcoss", "adapter@steps.stage_ct.adapter=lora_image"])


def order_of(run, *methods, name: str, number: int = 1) -> Order:
    """A round of the CT stage, away from its start."""
    step, backbone = copy.deepcopy(run.steps["stage_ct"]), load_backbone(run.backbone)
    step.view, step.methods, step.training.epochs = copy.deepcopy(VIEW), list(methods), 1
    split = replace(run.data.split, folds=3, validation=0.34)
    start = AdaptedModel(backbone, step, seed=1).state()
    generator = torch.Generator().manual_seed(3)
    moved = {n: t + 0.05 * torch.randn(t.shape, generator=generator) for n, t in start.items()}
    order = Order(step, 1, number, run.backbone, backbone_digest(backbone), split, state=moved, run=name)
    return replace(order, extra=brought(Begun(order.step, start, order.base), {}))


def test_models_that_are_equal_teach_nothing_to_the_bit_even_in_training_mode(run):
    order = order_of(run, name="a" * 8)
    backbone = load_backbone(run.backbone)
    student, teacher, other = (AdaptedModel(backbone, order.step, seed=1) for _ in range(3))
    for model in (student, teacher):
        model.load(order.state)
    student.train()
    inputs = {"CT": torch.rand(2, 1, 16, 16, 16), "EHR": backbone.tokenizer(["hpv positive.", "smoker. 63 year old."])}
    for text in ("CT", "CT:slices", "EHR"):
        source = source_of(text)
        values = as_form(inputs[source.modality], source, in_training=True)
        view, _ = hide(values, source, noise=drawn_noise(values, source, 8, in_training=True), share=0.0)
        loss = distilled(student, teacher, view)
        loss.backward()
        assert loss.item() == 0.0 and student.training
        assert all(p.grad is None or not p.grad.any() for p in student.trainable_parameters())
        assert distilled(student, other, view).item() > 0


def test_a_round_of_fewer_batches_than_one_is_owed_rehearses_all_the_same(files, run):
    plain, kept = order_of(run, name="b" * 8), order_of(run, MedcossMethod(stages=STAGES, share=0.01), name="c" * 8)
    center = Center.open(files["CHUM"])
    forget()
    one, two = center.train(plain), center.train(kept)
    assert one.counts == two.counts  # of batches and cases of the stage alone
    assert any(not torch.equal(one.state[n], two.state[n]) for n in one.state)
    assert two.extra == {}


def test_without_stages_it_is_plain_training_bit_for_bit(files, run):
    center = Center.open(files["CHUM"])
    forget()
    one, two = (center.train(order_of(run, *m, name="d" * (8 + i))) for i, m in enumerate(([], [MedcossMethod()])))
    assert all(torch.equal(one.state[n], two.state[n]) for n in one.state)


def test_who_is_kept_is_chosen_once_from_training_folds_and_named_by_hashes_alone(files, run):
    center = Center.open(files["MDA"])
    forget()
    center.train(order_of(run, MedcossMethod(stages=STAGES), name="e" * 8))
    paths = sorted((center.vault / "steps").glob("*/memory-*.json"))
    assert [path.stem for path in paths] == ["memory-CT_slices", "memory-EHR_report"]
    before = [path.read_bytes() for path in paths]
    assert all(b"MDA" not in text for text in before)
    center.train(order_of(run, MedcossMethod(stages=STAGES), name="e" * 8, number=2))
    assert [path.read_bytes() for path in paths] == before
    key = read_cohort(center.vault).key
    trains = {hashed_id(key, case.patient) for case in center.part(order_of(run, name="e" * 8), "train")}
    kept = [row["patient"] for row in read_sealed(paths[0], remedy="")]
    assert kept and {*kept} <= trains
    assert forget_patient(center.vault, kept[0]) >= 1
    assert kept[0] not in paths[0].read_text()


def test_training_without_a_center_says_why_it_cannot_rehearse(files, run):
    from client.methods import methods_of
    from client.training.job import Job
    from client.vault.vault import Vault

    order = order_of(run, MedcossMethod(stages=STAGES), name="f" * 8)
    [method] = methods_of(order.step, Vault(Center.open(files["CHUM"]).vault, order))
    with pytest.raises(StageProblem, match="takes a center with its own cases"):
        method.begin(Job(order, "CHUM", None, None, None, [], None, seed=1))


def test_an_earlier_stage_is_seen_through_this_steps_view(run):
    step = run.steps["stage_ct"]
    found = earlier_stage(step, "EHR")
    assert found.modalities == ["EHR"] and found.task.sources == ["EHR"] and found.view == step.view
