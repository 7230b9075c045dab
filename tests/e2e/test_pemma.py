"""PEMMA's promises: parts train where their modality is, and one modality's lessons leave the other's output alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from common.backbones import load_backbone
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.config.run import Run
from common.config.view import View
from common.data.batch import parse_mode
from common.data.modality_sets import validation_mode
from common.errors import RoundFailed
from common.model.adapted import AdaptedModel
from simulations.comparison.baselines import baseline_order
from tests.helpers.small import (
    SIDE,
    SPACING,
    adapters,
    federate,
    forget,
    open_all,
    tampering,
    write_centers,
    write_cohort,
)

CT_ONLY = ("CHUM", "CHUP", "CHUS", "CHUV")
PET_PARTS = {"alone_pet", "skip_pet", "stem_pet"}


def pemma_run(*steps: str, rounds: int = 1, backbone: str = "tiny", options: Sequence[str] = ()) -> Run:
    """Stages of curriculum=pemma on a small backbone and small cubes."""
    run = compose_run(["curriculum=pemma", f"backbone={backbone}", "name=small", *options])
    run.steps = {name: run.steps[name] for name in steps}
    run.data.split.folds, run.data.split.validation = 3, 0.34
    for step in run.steps.values():
        step.rounds, step.training.epochs = rounds, 1
        step.view = View(spacing_mm=[SPACING] * 3, size=[SIDE] * 3, window=[SIDE] * 3, crop="center")
    return run


@pytest.fixture(scope="module")
def mixed_centers(tmp_path_factory):
    """Four centers with CT alone and MDA with CT and PET."""
    root = write_cohort(tmp_path_factory.mktemp("mixed"), dict.fromkeys([*CT_ONLY, "MDA"], 5))
    for center in CT_ONLY:
        for pet in (root / "imagesTr").glob(f"{center}*__PT.nii.gz"):
            pet.unlink()
    return write_centers(tmp_path_factory.mktemp("centers"), root, [*CT_ONLY, "MDA"])


@pytest.fixture(scope="module")
def full_centers(tmp_path_factory):
    """Four centers that all have PET."""
    codes = ["CHUM", "MDA", "HGJ", "HMR"]
    root = write_cohort(tmp_path_factory.mktemp("full"), dict.fromkeys(codes, 6))
    return write_centers(tmp_path_factory.mktemp("full_centers"), root, codes)


@pytest.fixture(scope="module")
def stages(tmp_path_factory, full_centers):
    """ct -> mda -> hgj_pet; the coordinator and the centers' files."""
    run = pemma_run("ct", "mda", "hgj_pet")
    run.steps["ct"].centers = ["CHUM"]
    return federate(run, tmp_path_factory.mktemp("stages"), full_centers), full_centers


def test_averages_are_over_the_centers_that_trained_a_part(mixed_centers, tmp_path):
    run = pemma_run("ct", "mda")
    run.steps["mda"].centers, run.steps["mda"].train_parts, run.steps["mda"].training.draw = ["*"], ["*"], {}
    grid = tampering()
    leader = federate(run, tmp_path, mixed_centers, grid=grid)
    sent = {}
    for asked, reply in grid.seen:
        if asked.metadata.message_type == "train" and '"name":"mda"' in str(asked.content["config"]["step"]):
            code = str(reply.content.config_records["status"]["center"])
            arrays = reply.content.array_records["arrays"]
            sent[code] = {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}
    parts = {code: {name.partition("/")[0] for name in state} for code, state in sent.items()}
    assert parts["MDA"] == {"decoder", "join", "skip_pet", "stem_pet", "within"}
    assert all(parts[code] == {"alone_ct", "decoder", "join", "within"} for code in CT_ONLY)
    after = leader.bank.get(adapters(leader)["mda"])
    alone = {name for name, tensor in after.items() if torch.equal(tensor, sent["MDA"].get(name, tensor + 1))}
    assert {name for name in sent["MDA"] if name.startswith(("skip_pet/", "stem_pet/"))} <= alone  # undiluted
    assert {name.partition("/")[0] for name in {*sent["MDA"]} - alone} == {"decoder", "join", "within"}  # of all five
    start = AdaptedModel(leader.backbone, run.steps["mda"], seed=run.seed).state()
    assert all(torch.equal(after[name], start[name]) for name in after if name.startswith("alone_pet/"))  # of nobody


def test_parts_that_nobody_can_train_stay_untouched(mixed_centers, tmp_path):
    run = pemma_run("ct", "mda")
    run.steps["mda"].centers, run.steps["mda"].train_parts = list(CT_ONLY), ["*"]
    leader = federate(run, tmp_path, mixed_centers)
    start = AdaptedModel(leader.backbone, run.steps["mda"], seed=run.seed).state()
    after = leader.bank.get(adapters(leader)["mda"])
    moved = {name.partition("/")[0] for name in start if not torch.equal(start[name], after[name])}
    assert not moved & PET_PARTS and {"alone_ct", "join", "within"} <= moved


def test_pet_requested_where_none_exists_is_one_sentence(mixed_centers, tmp_path):
    run = pemma_run("ct", "mda", "hgj_pet")
    run.steps["hgj_pet"].centers = ["CHUM", "CHUP"]
    with pytest.raises(RoundFailed, match=r"No center can train step 'hgj_pet': .*'CHUM': 'no_training_cases'"):
        federate(run, tmp_path, mixed_centers)


def test_after_a_pet_only_stage_ct_answers_are_bit_identical_everywhere(stages):
    leader, files = stages
    before, after = (leader.bank.get(adapters(leader)[name]) for name in ("mda", "hgj_pet"))
    assert moved_parts(before, after) == PET_PARTS
    check_only_ct_is_the_same(leader, files, before, after)


def moved_parts(before, after):
    return {name.partition("/")[0] for name in before if not torch.equal(before[name], after[name])}


def check_only_ct_is_the_same(leader, files, before, after):
    """What stage ``mda``'s model answers from CT is the same to the last bit, at every center; from PET it is not."""
    step = leader.run.steps["mda"]
    forget()
    for center in open_all(files):
        for mode in ("CT", "PET", "CT+PET"):
            outputs = []
            for state in (before, after):
                order = replace(baseline_order(leader.run, step, base=leader.base, state=state), mode=mode)
                model, _ = center.model(order)
                batch = center.case_set(order, "test", model).collate([0]).in_mode(mode)
                with torch.no_grad():
                    outputs.append(model(batch.inputs, batch.present))
            assert torch.equal(*outputs) == (mode == "CT"), (center.code, mode)


LIGHT = [f"steps.{step}.adapter.parts.decoder.style=light" for step in ("ct", "mda", "hgj_pet")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "adapter", "options"),
    [
        ("tiny", "pemma_dora", []),
        ("unetr_small", "pemma_beside", []),
        ("unetr_small", "pemma_dora", []),
        ("swin_unetr_small", "pemma", LIGHT),
        ("swin_unetr_small", "pemma_dora", LIGHT),
    ],
)
def test_a_pet_only_stage_keeps_ct_on_the_papers_backbones(full_centers, tmp_path, backbone, adapter, options):
    chosen = [f"adapter@steps.{step}.adapter={adapter}" for step in ("mda", "hgj_pet")]
    run = pemma_run("ct", "mda", "hgj_pet", backbone=backbone, options=[*chosen, *options])
    run.steps["ct"].centers = ["CHUM"]
    if backbone == "swin_unetr_small":  # its windows are multiples of 32
        for step in run.steps.values():
            step.view.size = step.view.window = [32, 32, 32]
    mine = set(run.steps["mda"].adapter.parts)
    run.steps["mda"].train_parts = sorted(mine - {"decoder"})
    run.steps["hgj_pet"].train_parts = sorted(mine & PET_PARTS)
    leader = federate(run, tmp_path, full_centers)
    before, after = (leader.bank.get(adapters(leader)[name]) for name in ("mda", "hgj_pet"))
    assert moved_parts(before, after) == mine & PET_PARTS
    check_only_ct_is_the_same(leader, full_centers, before, after)


def test_every_stage_is_scored_in_every_mode_at_every_center(stages):
    leader, files = stages
    rows = [r for r in leader.ledger.events("step_finished")[-1]["scores"] if r["metric"] == "dice"]
    for task, modes in {"ct": {"CT"}, "mda": {"CT", "PET", "CT+PET"}, "hgj_pet": {"CT", "PET", "CT+PET"}}.items():
        found = {(r["center"], r["mode"]) for r in rows if r["task"] == task}
        assert found == {(center, mode) for center in [*files, "pooled"] for mode in modes}
    ct_rows = [[r["value"] for r in rows if r["task"] == task and r["mode"] == "CT"] for task in ("mda", "hgj_pet")]
    assert ct_rows[0] == ct_rows[1]


def test_a_stage_validates_with_what_arrives(stages):
    steps = compose_run(["curriculum=pemma"]).steps
    assert {name: validation_mode(step) for name, step in steps.items()} == {
        "ct": "", "mda": "", "hgj_ct": "CT", "hgj_pet": "PET", "hgj_ctpet": "", "hmr_ct": "CT", "hmr_pet": "PET",
        "hmr_ctpet": "",
    }  # fmt: skip
    assert all(parse_mode(mode) for mode in steps["mda"].modes)


def test_the_bank_routes_a_mode_to_the_stage_that_answers_it(stages):
    leader, _ = stages
    ask = {"task": "segmentation", "region": "head_neck"}
    key = leader.bank.route(modalities=["PET"], center="HGJ", **ask)
    assert leader.bank.entry(key).step.name == "hgj_pet"
    assert leader.bank.entry(leader.bank.route(modalities=["CT", "PET"], **ask)).step.name in ("mda", "hgj_pet")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+steps.mda.training.draw.EHR=1.0", "training.draw has 'EHR' with weight 1.0"),
        ("steps.mda.training.draw={CT: 0, PET: 0, CT+PET: 0}", "training.draw has no mode of positive weight"),
        ("steps.mda.modes=[CT+EHR]", "modes has 'CT+EHR', which is not made of its modalities"),
        ("~steps.mda.adapter.parts.join", "a stand_in part works in front of a join part"),
    ],
)
def test_modes_that_make_no_sense_are_broken_rules(override, sentence):
    assert any(sentence in problem for problem in broken_rules(compose_run(["curriculum=pemma", override])))


def test_another_cohort_stands_in_for_hecktor_by_data_alone():
    run = compose_run(["curriculum=pemma", "data=sts7", "data.root=somewhere"])
    assert run.steps["mda"].centers == ["STSA"] and run.steps["hgj_pet"].centers == ["STSF"]
    assert {s.region for s in run.steps.values()} == {"soft_tissue"}
    assert run.steps["ct"].task.structures == ["GTV"] and run.steps["ct"].view.size == [40, 32, 32]
    load_backbone(run.backbone)
