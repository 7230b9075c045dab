"""The vault goes on from the last round that counted, whatever was tried since."""

import pytest
import torch

from client.vault.vault import ReferenceMissing, Vault, VaultError
from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.protocol.messages import Order


def order(number=1, *, since=0, step="a", seed=1):
    return Order(Step(name=step), seed, number, BackboneSpec(), "base", Split(), since=since)


def state(value):
    return {"decoder/w": torch.tensor([float(value)])}


def value(found):
    return found["decoder/w"].item() if found else None


def test_a_round_reads_what_the_last_used_round_left(tmp_path):
    vault = Vault(tmp_path, order())
    vault.save("error", state(1), order=order(1))
    assert value(vault.load("error", since=0)) is None and value(vault.load("error", since=1)) == 1
    vault.save("error", state(2), order=order(2, since=1))  # rejected: since stays 1
    vault.save("error", state(3), order=order(3, since=1))
    assert value(vault.load("error", since=1)) == 1 and value(vault.load("error", since=3)) == 3
    assert len(list(tmp_path.rglob("round-*"))) == 2, "what nobody can ask for again is gone"


def test_a_repeated_round_overwrites_itself(tmp_path):
    vault = Vault(tmp_path, order())
    for content in (1, 5):
        vault.save("error", state(content), order=order(4, since=2))
    assert value(vault.load("error", since=4)) == 5


def test_personal_entries_of_every_round_are_kept(tmp_path):
    vault = Vault(tmp_path, order())
    for number in (1, 2, 3):
        vault.save("personal", state(number), order=order(number, since=number - 1), keep_all=True)
    assert [value(vault.load("personal", since=n)) for n in (0, 1, 2, 3, 9)] == [None, 1, 2, 3, 3]


def test_steps_and_seeds_have_shelves_of_their_own(tmp_path):
    Vault(tmp_path, order()).save("error", state(1), order=order())
    for other in (order(step="b"), order(seed=2), order(step="../a")):
        assert Vault(tmp_path, other).load("error", since=9) == {}
        assert tmp_path in Vault(tmp_path, other).path.resolve().parents


def test_references_are_found_by_digest_and_only_the_last_two_are_kept(tmp_path):
    vault = Vault(tmp_path, order())
    for number in range(4):
        vault.keep_reference(f"digest{number}", state(number))
    assert value(vault.reference("digest3")) == 3 and value(vault.reference("digest2")) == 2
    with pytest.raises(ReferenceMissing, match="must carry it whole"):
        vault.reference("digest0")


def test_a_damaged_entry_is_one_sentence(tmp_path):
    vault = Vault(tmp_path, order())
    vault.save("error", state(1), order=order())
    next(tmp_path.rglob("round-*")).write_bytes(b"torn")
    with pytest.raises(VaultError, match="cannot be read"):
        vault.load("error", since=1)
