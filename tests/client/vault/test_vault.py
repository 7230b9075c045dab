"""The vault goes on from the last round that counted, whatever was tried since."""

import random

import pytest
import torch

from client.vault.standing import Standing, VaultBehind, VaultError, give_up, losses
from client.vault.vault import ReferenceMissing, Vault
from common.backbones.base import tensors_digest
from common.config.run import BackboneSpec, Split
from common.config.step import Step
from common.protocol.messages import Order

RUN, OTHER = "a" * 32, "b" * 32


def order(number=1, *, since=0, step="a", seed=1, **more):
    return Order(Step(name=step), seed, number, BackboneSpec(), "base", Split(), since=since, **more)


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


def test_entries_of_the_best_round_and_of_the_last_two_are_kept(tmp_path):
    vault = Vault(tmp_path, order())
    for number in (1, 2, 3, 4, 5):
        vault.save("personal", state(number), order=order(number, since=number - 1, best=min(number - 1, 2)))
    assert [value(vault.load("personal", since=n)) for n in (0, 2, 4, 5)] == [None, 2, 4, 5]
    assert len(list(tmp_path.rglob("round-*"))) == 3


def test_an_entry_that_should_be_there_and_is_not_is_an_error_until_the_hospital_accepts_the_loss(tmp_path):
    mine = order(3, since=2, run=RUN)
    with pytest.raises(VaultError, match="has used this center's update of round 2") as missing:
        Vault(tmp_path, mine).load("error", since=2)
    assert missing.value.code == "vault"
    assert losses(tmp_path) == [{"run": RUN, "step": "a", "since": 2}]
    assert give_up(tmp_path) == [{"run": RUN, "step": "a", "since": 2}] and losses(tmp_path) == []
    assert Vault(tmp_path, mine).load("error", since=2) == {} and Standing(tmp_path, mine).afresh
    later = order(4, since=3, run=RUN)
    with pytest.raises(VaultError):
        Vault(tmp_path, later).load("error", since=3)
    assert not Standing(tmp_path, later).afresh, "what is lost later is another loss"


def test_a_center_that_never_took_part_is_not_accused(tmp_path):
    assert Vault(tmp_path, order(5, run=RUN)).load("local", since=0) == {}
    Standing(tmp_path, order(5, run=RUN)).check()


def test_a_vault_that_knows_nothing_of_a_run_in_which_it_took_part_is_lost(tmp_path):
    with pytest.raises(VaultError, match="erase the erased patients again"):
        Standing(tmp_path, order(2, run=RUN, met=True)).check()
    give_up(tmp_path)
    Standing(tmp_path, order(2, run=RUN, met=True)).check()


def test_a_ledger_that_was_rolled_back_is_noticed(tmp_path):
    for number in (1, 2, 3, 4):
        Vault(tmp_path, order()).save("error", state(number), order=order(number, since=number - 1, run=RUN))
        Standing(tmp_path, order(number, run=RUN)).trained()
    repeated, back = order(4, since=3, run=RUN), order(3, since=2, run=RUN)
    assert Standing(tmp_path, repeated).ahead == 0 and Standing(tmp_path, back).ahead == 4
    with pytest.raises(VaultBehind, match="round 4 already") as refused:
        Vault(tmp_path, back).load("error", since=2)
    assert refused.value.code == "vault.ahead"
    assert Standing(tmp_path, order(1, run=RUN, attempt=1)).ahead == 0, "a failed step's rounds are repeated"


def test_a_run_that_continues_another_reads_its_shelf_and_no_other_run_does(tmp_path):
    Vault(tmp_path, order(run=RUN)).save("scaffold", state(7), order=order(2, run=RUN))
    assert Vault(tmp_path, order(run=OTHER)).load("scaffold", since=0) == {}
    going_on = order(run=OTHER, continues=RUN, earlier=2)
    assert value(Vault(tmp_path, going_on).load("scaffold", since=0)) == 7
    with pytest.raises(VaultError, match="continues run"):
        Vault(tmp_path, order(run=OTHER, continues=RUN, earlier=1)).load("scaffold", since=0)


@pytest.mark.parametrize("seed", range(8))
def test_two_runs_of_one_center_never_read_each_others_shelves(tmp_path, seed):
    draw = random.Random(seed)
    written = {}
    for value_written in range(40):
        run, step, number = draw.choice([RUN, OTHER, ""]), draw.choice("ab"), draw.randint(1, 4)
        own = order(number, step=step, run=run, since=number - 1, best=draw.randint(0, number - 1))
        Vault(tmp_path, own).save("personal", state(value_written), order=own)
        written[run, step, number] = value_written
    for (run, step, number), expected in written.items():
        path = Vault(tmp_path, order(step=step, run=run)).path / "personal" / f"round-{number:04d}.safetensors"
        if path.exists():
            assert value(Vault(tmp_path, order(step=step, run=run)).load("personal", since=number)) == expected
    assert len({Vault(tmp_path, order(step=s, run=r)).path for r in (RUN, OTHER, "") for s in "ab"}) == 6


def test_a_flipped_bit_in_an_entry_is_one_sentence(tmp_path):
    vault = Vault(tmp_path, order())
    vault.save("error", state(1), order=order())
    path = next(tmp_path.rglob("round-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x41")
    with pytest.raises(VaultError, match="does not have the hash"):
        vault.load("error", since=1)


def test_steps_and_seeds_have_shelves_of_their_own(tmp_path):
    Vault(tmp_path, order()).save("error", state(1), order=order())
    for other in (order(step="b"), order(seed=2), order(step="../a")):
        assert not Vault(tmp_path, other).path.exists()
        assert tmp_path in Vault(tmp_path, other).path.resolve().parents


def test_references_are_found_by_digest_and_only_the_last_two_are_kept(tmp_path):
    vault, kept = Vault(tmp_path, order()), [tensors_digest(state(number)) for number in range(4)]
    for number in range(4):
        vault.keep_reference(kept[number], state(number))
    assert value(vault.reference(kept[3])) == 3 and value(vault.reference(kept[2])) == 2
    with pytest.raises(ReferenceMissing, match="must carry it whole"):
        vault.reference(kept[0])
    next(tmp_path.rglob(f"{kept[3]}*")).write_bytes(b"torn")
    with pytest.raises(ReferenceMissing, match="was dropped"):
        vault.reference(kept[3])


def test_a_damaged_entry_is_one_sentence(tmp_path):
    vault = Vault(tmp_path, order())
    vault.save("error", state(1), order=order())
    next(tmp_path.rglob("round-*")).write_bytes(b"torn")
    with pytest.raises(VaultError, match="cannot be read"):
        vault.load("error", since=1)
