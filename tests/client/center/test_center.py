"""A center: its own file, its own cases, and exactly the parts and sums that its data allow."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from client.center.center import Center
from client.center.config import CenterConfig, own_files
from client.center.models import backbone_of
from client.training.observation import observe
from common.backbones import backbone_digest, load_backbone
from common.backbones.ct_clip import MINI_WEIGHTS
from common.config.run import BackboneSpec
from common.errors import ConfigError, PolicyRefusal
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from simulations.comparison.baselines import pooled
from tests.helpers.small import forget, open_all, small_run, write_centers, write_cohort


@pytest.fixture
def order():
    forget()
    return order_of("tumour_ctpet")


def order_of(name):
    run = small_run(steps=["tumour_ct", "tumour_ctpet", "relapse"])
    backbone = load_backbone(run.backbone)
    state = AdaptedModel(backbone, run.steps[name], seed=1).state()
    return Order(
        run.steps[name], 1, 1, run.backbone, backbone_digest(backbone), run.data.split, state=state, subset="test"
    )


@pytest.mark.parametrize("text", ["code: CHUM\nroot: /data\nrot: 3\n", "- a\n- b\n", "threads: many\n", "code: CHUM\n"])
def test_a_center_file_with_a_mistake_is_named(tmp_path, text):
    path = tmp_path / "CHUM.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"CHUM\.yaml is not a center's configuration"):
        Center.open(path)


def test_a_center_describes_itself_by_counts(small_centers, order):
    reply = Center.open(small_centers["MDA"]).describe(order)
    assert (
        reply.code == "ok" and sum(reply.counts.values()) == 7 and set(reply.counts) == {"train", "validation", "test"}
    )
    assert not reply.state and not reply.sums


def test_a_center_without_pet_leaves_the_pet_parts_at_home(tmp_path, order):
    root = write_cohort(tmp_path / "cohort", {"CHUM": 6})
    for pet in (root / "imagesTr").glob("*__PT.nii.gz"):
        pet.unlink()
    file = write_centers(tmp_path / "centers", root, ["CHUM"])["CHUM"]
    reply = Center.open(file).train(order)
    assert {name.partition("/")[0] for name in reply.state} == {"decoder"}
    assert {name.partition("/")[0] for name in order.state} == {"decoder", "skip_pet", "stem_pet"}


def test_training_is_a_function_of_seed_step_center_and_round(small_centers, order):
    def bits(code="CHUM", **changes):
        forget()
        state = Center.open(small_centers[code]).train(replace(order, **changes)).state
        return b"".join(tensor.numpy().tobytes() for _, tensor in sorted(state.items()))

    first = bits()
    assert bits() == first
    assert len({first, bits(seed=2), bits(round=2), bits("CHUP")}) == 4


def test_results_below_the_centers_own_minimum_stay(tmp_path, small_root, order):
    file = write_centers(tmp_path, small_root, ["CHUM"], minimum_cell=5)["CHUM"]
    reply = Center.open(file).evaluate(order)
    assert reply.is_usable and not reply.sums and reply.counts == {"cases": 5, "skipped": 0, "suppressed": 1}


def test_a_small_count_is_told_as_the_minimum_and_none_as_none(tmp_path, small_root, order):
    file = write_centers(tmp_path, small_root, ["CHUM"], minimum_cell=3)["CHUM"]
    counts = {name: len(Center.open(file).part(order, name)) for name in ("train", "validation", "test")}
    assert counts == {"train": 2, "validation": 2, "test": 2}
    assert Center.open(file).describe(order).counts == {"train": 3, "validation": 3, "test": 3}


def test_a_server_cannot_lower_the_centers_minimum_but_may_raise_it(small_centers, order):
    center = Center.open(small_centers["CHUM"])
    assert center.evaluate(replace(order, minimum_cell=2)).sums
    assert not center.evaluate(replace(order, minimum_cell=3)).sums


def test_a_minimum_that_varies_from_order_to_order_counts_no_patient(tmp_path, small_root, order):
    """Steps of 5, 6 and 7 would tell a number between them; those of 5, 10 and 15 say what those of 5 say."""
    center = Center.open(write_centers(tmp_path, small_root, ["CHUM"], minimum_cell=5)["CHUM"])
    asked = {least: center.minimum(replace(order, minimum_cell=least)).cell for least in range(-1, 17)}
    assert set(asked.values()) == {5, 10, 15, 20} and all(least <= cell for least, cell in asked.items())
    open_center = Center.open(write_centers(tmp_path / "open", small_root, ["CHUM"], minimum_cell=1)["CHUM"])
    assert [open_center.minimum(replace(order, minimum_cell=least)).cell for least in (0, 1, 3)] == [1, 1, 3]


def test_sums_are_those_of_the_observed_cases(small_centers, order):
    center = Center.open(small_centers["MDA"])
    reply = center.evaluate(order)
    model, task = center.model(order)
    observed = observe(order, model, task, center.case_set(order, "test", model))
    for name, value in task.sums([o for o, _ in observed]).items():
        assert np.array_equal(reply.sums[name], value)
    assert reply.sums["fit.cases"] == len(observed) == reply.counts["cases"]


def test_a_hospital_reads_its_own_copy_of_the_frozen_model(small_centers, order, tmp_path):
    mine = tmp_path / "mine.safetensors"
    shutil.copy(MINI_WEIGHTS, mine)
    frozen = BackboneSpec(kind="ct_clip", config="mini", weights="/only/at/the/coordinator.pt")
    asked = replace(order, backbone=frozen, base=backbone_digest(load_backbone(BackboneSpec())))
    config = replace(Center.open(small_centers["CHUM"]).config, server="fed.example.org:443")
    with pytest.raises(PolicyRefusal, match=r"name this center's own in center.yaml: weights: \{ct_clip: FILE\}") as no:
        backbone_of(config, asked)
    assert no.value.code == "declined.weights" and "/only/at" not in str(no.value)
    found = backbone_of(replace(config, weights={"ct_clip": str(mine)}), asked)
    assert backbone_digest(found) == asked.base


def test_paths_of_files_are_never_taken_from_a_server():
    plain = BackboneSpec(kind="unetr", weights="/server/w.pt", text_folder="/server/text")
    config = CenterConfig(server="fed:443", weights={"unetr": "/mine/w.pt"}, text_folder="/mine/text")
    assert own_files(config, plain) == replace(plain, weights="/mine/w.pt", text_folder="/mine/text")
    assert own_files(config, BackboneSpec()) == BackboneSpec()
    assert own_files(CenterConfig(), plain) == plain, "a simulation's centers share its files"
    with pytest.raises(PolicyRefusal, match="text_folder: FOLDER"):
        own_files(replace(config, text_folder=""), plain)


def test_another_base_is_refused_before_any_data_is_opened(small_centers, order, monkeypatch):
    monkeypatch.setattr(Center, "cases", property(lambda self: pytest.fail("opened")))
    for ask in ("describe", "train", "evaluate"):
        with pytest.raises(PolicyRefusal, match="install the same weights on both sides") as refusal:
            getattr(Center.open(small_centers["CHUM"]), ask)(replace(order, base="0" * 64))
        assert refusal.value.code == "declined.base_mismatch"


@pytest.mark.parametrize("ask", ["describe", "train", "sums", "evaluate"])
@pytest.mark.parametrize("changed", [{"folds": 6, "validation": 0.0}, {"seed": 9}, {"validation": 0.2}])
def test_no_action_answers_with_another_split_than_the_hospitals(small_centers, order, ask, changed):
    center = Center.open(small_centers["CHUM"])
    center.part(order, "train")
    with pytest.raises(PolicyRefusal, match="this hospital's split is seed 0, 3 folds") as refusal:
        getattr(Center.open(small_centers["CHUM"]), ask)(replace(order, split=replace(order.split, **changed)))
    assert refusal.value.code == "declined.split"


@pytest.mark.parametrize("ask", ["describe", "train", "sums", "evaluate"])
def test_no_action_tests_on_a_fold_that_the_hospital_does_not_let_test(tmp_path, small_root, order, ask):
    center = Center.open(write_centers(tmp_path, small_root, ["CHUM"], test_folds=[0])["CHUM"])
    with pytest.raises(PolicyRefusal, match="fold 1 as the test; local policy allows 0") as refusal:
        getattr(center, ask)(replace(order, split=replace(order.split, fold=1)))
    assert refusal.value.code == "declined.split" and not center.vault.exists()


def test_pools_of_other_centers_never_share_cases(small_centers, order):
    """Two pools in one process have the same code: their cases must be told apart by who is in them."""
    centers = open_all(small_centers)
    pools = [pooled(centers[:2]), pooled(centers[1:]), pooled(centers[:1])]
    sizes = []
    for pool in pools:
        model, _ = pool.model(order)
        sizes.append([len(pool.case_set(order, name, model)) for name in ("train", "validation", "test")])
    alone = [[len(c.part(order, name)) for name in ("train", "validation", "test")] for c in centers]
    assert sizes[0] == list(np.sum(alone[:2], axis=0)) and sizes[1] == list(np.sum(alone[1:], axis=0))
    assert sizes[2] == alone[0] and pools[2].code == centers[0].code and pools[0].code == pools[1].code == "ALL"


def test_steps_that_see_the_same_data_share_the_prepared_cases(small_centers, order):
    center = Center.open(small_centers["CHUM"])
    model, _ = center.model(order)
    kept = center.case_set(order, "train", model)
    assert center.case_set(replace(order, round=7), "train", model) is kept
    assert center.case_set(replace(order, base="other"), "train", model) is not kept
    assert center.case_set(replace(order, skip_unreadable=False), "train", model) is not kept
    ct = order_of("tumour_ct")
    assert center.case_set(ct, "train", center.model(ct)[0]) is not kept


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_center_set_to_a_missing_gpu_says_so():
    with pytest.raises(ConfigError, match=r"no CUDA GPU is visible; set device: cpu"):
        Center(CenterConfig("CHUM", "root", device="cuda"))
