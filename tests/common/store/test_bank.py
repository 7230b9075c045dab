"""The bank never overwrites, notices damage, and routes only to what was learned."""

from dataclasses import replace

import pytest
import torch

from common.config.load import compose_run
from common.config.task import ClassificationTask
from common.errors import BankError
from common.store.bank import AdapterBank

RUN = compose_run(["curriculum=quickstart"])


def state(value=1.0):
    return {"head/weight": torch.full((2, 3), value), "head/empty": torch.zeros(2, 0, 3)}


def test_the_same_content_has_the_same_key_and_another_has_another(tmp_path):
    bank, step = AdapterBank(tmp_path), RUN.steps["relapse"]
    first = bank.commit(step, state(), base="b")
    assert bank.commit(step, state(), base="b").key == first.key
    assert bank.commit(step, state(2.0), base="b").key != first.key
    assert bank.commit(step, state(), base="c").key != first.key


def test_a_state_comes_back_bit_for_bit_with_its_step(tmp_path):
    bank = AdapterBank(tmp_path)
    key = bank.commit(RUN.steps["relapse"], state(), base="b").key
    back = AdapterBank(tmp_path).get(key)
    assert all(torch.equal(back[name], tensor) for name, tensor in state().items())
    assert bank.entry(key).step == RUN.steps["relapse"]


def test_a_changed_file_is_noticed(tmp_path):
    bank = AdapterBank(tmp_path)
    key = bank.commit(RUN.steps["relapse"], state(), base="b").key
    path = tmp_path / key / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BankError, match="does not have the hash"):
        bank.get(key)


def test_promote_and_rollback_move_the_head_only(tmp_path):
    bank, step = AdapterBank(tmp_path), RUN.steps["relapse"]
    old, new = bank.commit(step, state(1.0), base="b").key, bank.commit(step, state(2.0), base="b").key
    assert bank.head("relapse") == new
    bank.promote("relapse", old)
    assert bank.head("relapse") == old and torch.equal(bank.get(new)["head/weight"], state(2.0)["head/weight"])


def test_routing_prefers_more_modalities_and_a_centers_own_adapter(tmp_path):
    bank = AdapterBank(tmp_path)
    ct = bank.commit(RUN.steps["tumour_ct"], state(1), base="b", centers=["CHUM", "MDA"]).key
    both = bank.commit(RUN.steps["tumour_ctpet"], state(2), base="b", centers=["CHUM", "MDA"]).key
    own = bank.commit(RUN.steps["hmr_joins"], state(3), base="b", centers=["HMR"]).key
    ask = {"task": "segmentation", "region": "head_neck"}
    assert bank.route(modalities=["CT"], **ask) == ct
    assert bank.route(modalities=["CT", "PET"], **ask) == both
    assert bank.route(modalities=["CT", "PET"], center="HMR", **ask) == own


def test_routing_tells_questions_of_one_kind_apart_and_takes_the_latest(tmp_path):
    bank = AdapterBank(tmp_path)
    task = ClassificationTask(classes=["hpv"], form="binary", target="hpv")
    hpv = replace(RUN.steps["findings"], name="hpv", task=task, region="head_neck")
    stage = replace(hpv, name="stage", task=replace(task, target="t_stage"))
    first = bank.commit(hpv, state(1), base="b").key
    staged = bank.commit(stage, state(2), base="b").key
    again = bank.commit(replace(hpv, name="again"), state(3), base="b").key
    ask = {"task": "classification", "region": "head_neck", "modalities": ["CT"]}
    assert bank.route(about="hpv", **ask) == again and bank.route(about="t_stage", **ask) == staged
    assert bank.commit(hpv, state(1), base="b").key == first and bank.route(about="hpv", **ask) == first
    with pytest.raises(BankError, match=r"No adapter for classification of n_stage on head_neck from CT\. Learned: "):
        bank.route(about="n_stage", **ask)


def test_routing_refuses_what_was_never_learned_and_says_what_was(tmp_path):
    bank = AdapterBank(tmp_path)
    bank.commit(RUN.steps["tumour_ct"], state(), base="b")
    with pytest.raises(BankError, match=r"No adapter for prognosis .* Learned: segmentation on head_neck from CT"):
        bank.route(task="prognosis", modalities=["CT"], region="head_neck")
