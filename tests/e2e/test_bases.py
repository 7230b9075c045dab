"""A base that grows, federated: merged once, equal everywhere, older bases bit-identical, killed anywhere."""

import copy
import shutil

import pytest
import torch

from client.center import resident
from client.commands import predict
from common.backbones import backbone_digest, load_backbone
from common.config.adapter import LoraPart
from common.config.rules import broken_rules
from common.config.run import BackboneSpec
from common.store.bank import AdapterBank
from common.store.bases import Bases
from common.store.ledger import Ledger
from server.bases import growing
from server.bases.grown import GROWN
from server.bases.listed import listed
from server.learning import rounds
from server.run.export import export
from server.run.folder import RunFolder
from server.run.lineages import promote, rollback
from server.run.probe import changed_bits, probe_output, verify_run
from tests.e2e.test_resume import Killed, dies
from tests.helpers.small import adapters, federate, small_run, write_centers

CENTERS = ["CHUM", "CHUP"]
TINY = BackboneSpec(kind="tiny")


def a_run(centers=CENTERS, third=False):
    """One step with LoRA inside the model, a second on the base that it is merged into, a third on the second's."""
    steps = ["tumour_ct", "tumour_ctpet", *(["tumour_ct_more"] if third else [])]
    run = small_run(centers=list(centers), steps=steps, rounds=1)
    before = None
    for step in run.steps.values():
        step.starts_from, step.stands_on, step.training.augment = None, before, False
        step.adapter.parts["inside"] = LoraPart(sites=["image_attention"], rank=2, dropout=0.0)
        before = step.name
    assert broken_rules(run) == []
    return run


def forget_models():
    resident.FROZEN.clear()
    resident.MODELS.clear()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, small_root):
    path = tmp_path_factory.mktemp("grown")
    files = write_centers(path / "centers", small_root, CENTERS)
    return path, files, federate(a_run(), path / "run", files)


def vault(path, code):
    return Bases(AdapterBank(path / "centers" / ".vault" / code / "bases"))


def test_the_base_is_merged_once_and_is_the_same_on_server_and_centers(run_folder):
    path, _, leader = run_folder
    [event] = leader.ledger.events(GROWN)
    keys = adapters(leader)
    assert event["merged"] == [keys["tumour_ct"]] and event["from"] == event["root"] == leader.base
    assert event["centers"] == dict.fromkeys(CENTERS, "ok")
    root = load_backbone(TINY)
    for bases in (leader.bases.bases, vault(path, "CHUM"), vault(path, "CHUP")):
        assert backbone_digest(bases.build(event["base"], root, root_digest=leader.base)) == event["base"]
    assert leader.bank.entry(keys["tumour_ct"]).base == leader.base
    assert leader.bank.entry(keys["tumour_ctpet"]).base == event["base"]


def test_the_first_steps_outputs_are_bit_identical_afterwards(run_folder):
    _, _, leader = run_folder
    key = adapters(leader)["tumour_ct"]
    output = probe_output(load_backbone(TINY), leader.bank.entry(key).step, leader.bank.get(key), seed=leader.run.seed)
    assert changed_bits(output, leader.bank.probe(key)) == 0
    found = verify_run(leader.folder, TINY, seed=leader.run.seed)
    assert (
        found.total == 0
        and set(found.changed_bits) == {"tumour_ct", "tumour_ctpet"}
        and found.base_after == leader.base
    )
    before, after = leader.ledger.events("step_finished")
    old = {(r["center"], r["metric"]): r["value"] for r in before["scores"] if r["task"] == "tumour_ct"}
    new = {(r["center"], r["metric"]): r["value"] for r in after["scores"] if r["task"] == "tumour_ct"}
    assert old == new, "its scores in the matrix after the second step"


def test_a_step_that_kept_its_start_makes_no_new_base(small_root, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "best_round", lambda events: events[0])
    files = write_centers(tmp_path / "centers", small_root, CENTERS)
    leader = federate(a_run(), tmp_path / "run", files)
    [event] = leader.ledger.events(GROWN)
    assert event["base"] == event["from"] == leader.base and event["merged"] == []
    assert leader.bank.entry(adapters(leader)["tumour_ctpet"]).base == leader.base


def test_inspect_lists_the_bases(run_folder):
    _, _, leader = run_folder
    text = listed(leader.folder.path)
    [event] = leader.ledger.events(GROWN)
    assert leader.base in text and event["base"] in text and "the same at 2 of 2 centers" in text


@pytest.mark.parametrize(("module", "name", "at"), [
    (growing, "grow_base", 1), (growing, "_announced", 1), (rounds, "_one_round", 1), (rounds, "_one_round", 2),
])  # fmt: skip
def test_killed_anywhere_it_ends_with_the_same_bases_and_adapters(
    run_folder, small_root, tmp_path, monkeypatch, module, name, at
):
    _, _, undisturbed = run_folder
    files = write_centers(tmp_path / "centers", small_root, CENTERS)
    with monkeypatch.context() as patched:
        patched.setattr(module, name, dies(getattr(module, name), at=at, before=name != "_announced"))
        if name == "grow_base":
            from server import curriculum

            patched.setattr(curriculum, name, getattr(module, name))
        with pytest.raises(Killed):
            federate(a_run(), tmp_path / "run", files)
    forget_models()
    leader = federate(a_run(), tmp_path / "run", files)
    assert adapters(leader) == adapters(undisturbed)
    assert [e["base"] for e in leader.ledger.events(GROWN)] == [e["base"] for e in undisturbed.ledger.events(GROWN)]


def test_a_center_that_missed_the_stages_gets_them_in_order(small_root, tmp_path):
    """MDA connects when two stages are over; the third step's question brings it both, and it makes the same bases."""
    files = write_centers(tmp_path / "centers", small_root, [*CENTERS, "MDA"])
    run = a_run(third=True)
    run.steps["tumour_ct_more"].centers = run.steps["tumour_ct_more"].evaluate_at = [*CENTERS, "MDA"]
    _stopped_before_the_third(copy.deepcopy(run), tmp_path / "run", {code: files[code] for code in CENTERS})
    forget_models()
    leader = federate(run, tmp_path / "run", files)
    one, two = leader.ledger.events(GROWN)
    theirs = vault(tmp_path, "MDA")
    assert list(theirs.known()) == [one["base"], two["base"]] and theirs.ref(two["base"]).merged == tuple(two["merged"])
    [started] = leader.ledger.events("step_started", step="tumour_ct_more")
    assert started["centers"] == ["CHUM", "CHUP", "MDA"] and started["refused"] == {}
    assert set(leader.ledger.events("round_finished", step="tumour_ct_more")[0]["train"]) == {*CENTERS, "MDA"}
    assert started["bytes"]["MDA"]["down"] > 2 * started["bytes"]["CHUM"]["down"], "the stages are counted"


def _stopped_before_the_third(run, folder, files):
    from server import curriculum

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(curriculum, "run_step", dies(curriculum.run_step, at=3))
        with pytest.raises(Killed):
            federate(run, folder, files)


def test_a_center_that_makes_another_base_answers_with_a_code(small_root, tmp_path, monkeypatch, caplog):
    """Its arithmetic differs: a code travels, the sentence stays in its log, the others go on without it."""
    from client.center import models

    files = write_centers(tmp_path / "centers", small_root, [*CENTERS, "MDA"])
    theirs = tmp_path / "centers" / ".vault" / "MDA" / "bases"
    grow, build = models.Bases.grow, models.Bases.build

    def grow_otherwise(self, before, backbone, key, *, root):
        digest, grown = grow(self, before, backbone, key, root=root)
        return ("0" * 64 if self.bank.folder == theirs else digest), grown

    def build_otherwise(self, digest, root, *, root_digest):
        made = build(self, digest, root, root_digest=root_digest)
        return self._checked(root, digest) if self.bank.folder == theirs else made

    monkeypatch.setattr(models.Bases, "grow", grow_otherwise)
    monkeypatch.setattr(models.Bases, "build", build_otherwise)
    monkeypatch.setattr(models, "kept_base", lambda key, make, *, around: make())  # centers share this process
    forget_models()
    leader = federate(a_run([*CENTERS, "MDA"]), tmp_path / "run", files)
    [event] = leader.ledger.events(GROWN)
    assert event["centers"] == {"CHUM": "ok", "CHUP": "ok", "MDA": "backbone"}
    started = leader.ledger.events("step_started", step="tumour_ctpet")[0]
    assert started["refused"]["MDA"] == "backbone" and started["centers"] == CENTERS
    assert "this center cannot stand on it" in caplog.text


def test_a_lineage_rolled_back_or_promoted_changes_no_base(run_folder, tmp_path):
    """The base holds the key that the step committed, whatever its lineage points at later."""
    _, _, leader = run_folder
    shutil.copytree(leader.folder.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    bank, key = AdapterBank(folder.bank), adapters(leader)["tumour_ct"]
    entry = bank.entry(key)
    other = {name: tensor + 1 for name, tensor in bank.get(key).items()}
    newer = bank.commit(entry.step, other, base=entry.base, parents=[key], centers=CENTERS)
    bank.promote("tumour_ct", key)
    promote(folder, "tumour_ct", newer.key)
    assert bank.head("tumour_ct") == newer.key
    rollback(folder, "tumour_ct")
    assert bank.head("tumour_ct") == key
    [event] = Ledger(folder.ledger).events(GROWN)
    assert event["merged"] == [key] and verify_run(folder, TINY, seed=leader.run.seed).total == 0


def test_an_export_predicts_on_the_grown_base(run_folder, tmp_path):
    _, _, leader = run_folder
    export(leader.folder, tmp_path / "out", key=tmp_path / "key.pem")
    bank = predict.open_bank(tmp_path / "out")
    models = predict.Models(bank.adapters, [TINY], named=TINY, device="cpu")
    key = adapters(leader)["tumour_ctpet"]
    model = models.of(bank.adapters.entry(key))
    [event] = leader.ledger.events(GROWN)
    ours = dict(leader.bases.backbone_of(event["base"]).named_parameters())
    theirs = models._backbones[event["base"]]
    assert all(torch.equal(p, ours[n]) for n, p in theirs.named_parameters()) and model.step.name == "tumour_ctpet"
