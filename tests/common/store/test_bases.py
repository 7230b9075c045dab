"""Bases that grew: named by digest, made again from root and entries, refused where anything is missing or other."""

import pytest

from common.backbones import backbone_digest
from common.backbones.tiny import TinyBackbone
from common.errors import BackboneError, BankError, BaseMissing
from common.store.bank import AdapterBank
from common.store.bases import BaseRef, Bases
from tests.common.model.test_merging import lora_step, trained


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A bank with two stages, the second on the first; root, digests, keys."""
    bases = Bases(AdapterBank(tmp_path_factory.mktemp("bank")))
    root = TinyBackbone(0).freeze()
    digests, keys, base = [backbone_digest(root)], [], root
    for number in (1, 2):
        step = lora_step(rank=number)
        step.name = f"stage-{number}"
        entry = bases.bank.commit(step, trained(step), base=digests[-1])
        digest, base = bases.grow(digests[-1], base, entry.key, root=digests[0])
        digests.append(digest)
        keys.append(entry.key)
    return bases, root, digests, keys


def test_a_base_is_its_root_and_ordered_keys(grown):
    bases, _, (root, first, second), keys = grown
    assert bases.ref(first) == BaseRef(root, (keys[0],)) and bases.ref(second) == BaseRef(root, tuple(keys))
    assert bases.base_of(root, root) == BaseRef(root) and bases.chain(second) == [first, second]
    assert list(bases.known()) == [first, second]


def test_made_again_after_a_restart_it_has_the_same_digest(grown):
    bases, _, (root, first, second), _ = grown
    fresh = TinyBackbone(0).freeze()
    for digest in (root, first, second):
        assert backbone_digest(Bases(AdapterBank(bases.bank.folder)).build(digest, fresh, root_digest=root)) == digest
    assert backbone_digest(fresh) == root, "nothing of an earlier base changed"


def test_a_stage_is_merged_once_and_in_its_order(grown):
    bases, root, (digest, first, _), keys = grown
    with pytest.raises(BackboneError, match="stands on the frozen model"):
        bases.grow(digest, root, keys[1], root=digest)
    with pytest.raises(BackboneError, match="merged into this base already"):
        bases.ref(first).then(keys[0])


def test_what_is_missing_can_be_sent_and_another_root_cannot(grown, tmp_path):
    bases, root, (digest, first, second), _ = grown
    empty = Bases(AdapterBank(tmp_path))
    with pytest.raises(BaseMissing, match="sent in their order"):
        empty.build(second, root, root_digest=digest)
    other = TinyBackbone(1).freeze()
    with pytest.raises(BackboneError, match="use the weights that its run began with"):
        bases.build(first, other, root_digest=backbone_digest(other))


def test_stages_that_make_another_digest_are_refused(grown):
    bases, root, (digest, *_), keys = grown
    bases.keep("f" * 64, BaseRef(digest, (keys[0],)))
    with pytest.raises(BackboneError, match="is not what it was"):
        bases.build("f" * 64, root, root_digest=digest)
    bases.path("f" * 64).unlink()


def test_a_damaged_file_of_a_base_is_said(grown):
    bases, root, (digest, *_), _ = grown
    path = bases.path("e" * 64)
    path.write_text("{}")
    with pytest.raises(BankError, match="cannot be read"):
        bases.build("e" * 64, root, root_digest=digest)
    path.unlink()


def test_an_entry_is_kept_under_its_own_key_only(grown, tmp_path):
    bases, _, (root, *_), keys = grown
    entry, state, bank = bases.bank.entry(keys[0]), bases.bank.get(keys[0]), AdapterBank(tmp_path)
    with pytest.raises(BankError, match="is another one"):
        bank.keep(entry.step, state, key=keys[1], base=root, parents=[])
    assert bank.keep(entry.step, state, key=keys[0], base=root, parents=[]).key == keys[0]
    assert bank.heads() == {} and bank.get(keys[0]).keys() == state.keys()
