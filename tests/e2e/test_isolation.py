"""What was learned stays bit for bit: later steps and centers change nothing, and a drift anywhere is noticed."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.backbones import backbone_digest, load_backbone
from common.errors import BankError
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.run.folder import RunFolder
from server.run.probe import changed_bits, probe_output, verify_run
from tests.helpers.small import federate, small_run

ROOT = Path(__file__).resolve().parents[2]
OLD = ["CHUM", "CHUP"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory, small_centers):
    """CT, then CT + PET, then HMR, which was absent until then."""
    run = small_run(steps=["tumour_ct", "tumour_ctpet", "hmr_joins"], rounds=1)
    for name in ("tumour_ct", "tumour_ctpet"):
        run.steps[name].centers = run.steps[name].evaluate_at = list(OLD)
    return run, federate(run, tmp_path_factory.mktemp("learned"), small_centers)


def rows_of(event, **wanted):
    return [row for row in event["scores"] if all(row[name] == value for name, value in wanted.items())]


def without_label(rows):
    return [{name: value for name, value in row.items() if name != "step"} for row in rows]


def test_later_steps_leave_earlier_outputs_bit_identical(learned):
    run, leader = learned
    verification = verify_run(leader.folder, run.backbone, seed=run.seed)
    assert verification.changed_bits == {"tumour_ct": 0, "tumour_ctpet": 0, "hmr_joins": 0}
    assert verification.base_after == leader.base and verification.total == 0


def test_a_center_that_joins_later_changes_no_row_of_another(learned):
    _, leader = learned
    _, before, after = leader.ledger.events("step_finished")
    for center in [*OLD, "pooled"]:
        for task in ("tumour_ct", "tumour_ctpet"):
            rows = without_label(rows_of(before, center=center, task=task))
            assert rows and rows == without_label(rows_of(after, center=center, task=task))
    assert not rows_of(before, center="HMR")
    assert {row["task"] for row in rows_of(after, center="HMR")} == {"tumour_ct", "tumour_ctpet", "hmr_joins"}
    assert rows_of(after, center="HMR", task="hmr_joins", metric="dsc_agg")[0]["n"] == 1


def test_only_the_new_center_trains_its_step_from_the_older_adapter(learned):
    _, leader = learned
    third = leader.ledger.events("round_finished", step="hmr_joins")[0]
    entry = leader.bank.entry(leader.bank.head("hmr_joins"))
    assert list(third["train"]) == ["HMR"] and entry.centers == ["HMR"]
    assert entry.parents == [leader.bank.head("tumour_ctpet")]


def test_a_norm_parameter_of_the_shared_backbone_that_drifts_is_caught(learned):
    run, leader = learned
    drifted = copy.deepcopy(leader.backbone)
    with torch.no_grad():
        drifted.image_blocks[0].norm1.weight[0] += 1e-3
    verification = verify_run(leader.folder, run.backbone, seed=run.seed, backbone=drifted)
    assert min(verification.changed_bits.values()) > 0 and verification.base_after != leader.base


def test_training_leaves_the_shared_backbone_as_it_was(learned):
    run, leader = learned
    assert backbone_digest(leader.backbone) == backbone_digest(load_backbone(run.backbone)) == leader.base


@pytest.fixture(scope="module")
def on_ct_clip(tmp_path_factory):
    """A run folder with one committed relapse step on the mini CT-CLIP architecture."""
    run = small_run("backbone=random", steps=["relapse"])
    step, backbone = run.steps["relapse"], load_backbone(run.backbone)
    step.view.size = step.view.window = list(backbone.native.size)
    state = AdaptedModel(backbone, step, seed=run.seed).state()
    folder = RunFolder(tmp_path_factory.mktemp("ct_clip"))
    probe = probe_output(backbone, step, state, seed=run.seed)
    entry = AdapterBank(folder.bank).commit(step, state, base=backbone_digest(backbone), probe=probe)
    Ledger(folder.ledger).append("step_finished", {"step": "relapse", "key": entry.key})
    return run, folder, backbone, state


def test_a_vector_quantiser_buffer_that_drifts_is_caught(on_ct_clip):
    run, folder, backbone, _ = on_ct_clip
    assert verify_run(folder, run.backbone, seed=run.seed).total == 0
    drifted = copy.deepcopy(backbone)
    parameters = {id(p) for p in drifted.parameters()}
    codebooks = {n: b for n, b in drifted.named_buffers() if id(b) not in parameters and n.endswith("_codebook.embed")}
    assert len(codebooks) == 1
    with torch.no_grad():
        next(iter(codebooks.values())).mul_(-1.0)
    verification = verify_run(folder, run.backbone, seed=run.seed, backbone=drifted)
    assert verification.changed_bits["relapse"] > 0
    assert verification.base_after != backbone_digest(backbone)


def test_a_training_mode_forward_cannot_move_the_quantiser(on_ct_clip):
    run, _, backbone, state = on_ct_clip
    before = backbone_digest(backbone)
    model = AdaptedModel(backbone, run.steps["relapse"], seed=run.seed)
    model.load(state)
    model.train()
    window = run.steps["relapse"].view.window
    inputs = {"CT": torch.rand(1, 1, *window), "EHR": backbone.tokenizer(["63 year old man"])}
    model(inputs, {name: torch.ones(1, dtype=torch.bool) for name in inputs}).sum().backward()
    assert backbone_digest(backbone) == before


def test_changed_bits_are_counted_one_by_one():
    a = torch.tensor([1.0, 2.0, 0.0])
    assert changed_bits(a, a.clone()) == 0
    assert changed_bits(a, torch.tensor([-1.0, 2.0, 0.0])) == 1
    assert changed_bits(torch.tensor([0.0]), torch.tensor([-0.0])) == 1
    assert changed_bits(a, torch.zeros(2)) == 8 * 12
    assert changed_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")])) == 0


@pytest.mark.parametrize("file", ["state.safetensors", "probe.safetensors", "entry.json"])
def test_a_damaged_bank_is_a_bank_error(tmp_path, file):
    run = small_run(steps=["tumour_ct"])
    step, backbone, folder = run.steps["tumour_ct"], load_backbone(run.backbone), RunFolder(tmp_path)
    state = AdaptedModel(backbone, step, seed=run.seed).state()
    probe = probe_output(backbone, step, state, seed=run.seed)
    entry = AdapterBank(folder.bank).commit(step, state, base=backbone_digest(backbone), probe=probe)
    Ledger(folder.ledger).append("step_finished", {"step": "tumour_ct", "key": entry.key})
    path = folder.bank / entry.key / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BankError, match="restore it from a backup"):
        verify_run(folder, run.backbone, seed=run.seed)


def test_a_rewritten_entry_is_a_bank_error(learned, tmp_path):
    _, leader = learned
    key = leader.bank.head("tumour_ct")
    (tmp_path / key).mkdir()
    stored = json.loads((leader.folder.bank / key / "entry.json").read_text())
    (tmp_path / key / "entry.json").write_text(json.dumps({**stored, "base": "0" * 64}))
    with pytest.raises(BankError, match="was changed after it was committed"):
        AdapterBank(tmp_path).entry(key)


@pytest.mark.slow
def test_a_fresh_process_finds_no_changed_bit(learned):
    _, leader = learned
    command = [sys.executable, "-m", "server", "verify", str(leader.folder.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == {"changed_bits": {"tumour_ct": 0, "tumour_ctpet": 0, "hmr_joins": 0}, "base_after": leader.base}
