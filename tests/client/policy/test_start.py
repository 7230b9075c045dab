"""Where a round may start: an unseen state must be listed, a later one within reach of the center's own last."""

from dataclasses import replace

import pytest
import torch

from client.policy import Policy
from client.policy.start import check_start, keep_own
from client.vault.vault import Vault
from common.backbones.base import tensors_digest
from common.config.adapter import LoraPart
from common.config.run import BackboneSpec, Split
from common.errors import PolicyRefusal
from common.protocol.messages import Order
from tests.helpers.small import small_run

STEP = small_run(steps=["tumour_ct"]).steps["tumour_ct"]
START = {"decoder/weight": torch.tensor([3.0, 4.0]), "decoder/bias": torch.zeros(2)}
LISTED = Policy(initialisations=[tensors_digest(START)], reach=2.0)


def order(number=1, state=None, **changes):
    given = START if state is None else state
    return replace(Order(STEP, 1, number, BackboneSpec(), "base", Split(), state=given, run="a"), **changes)


def moved(by):
    """The start with its first number moved, from where the length of an update is read off."""
    return {**START, "decoder/weight": START["decoder/weight"] + torch.tensor([by, 0.0])}


def refused(policy, asked, vault):
    try:
        check_start(policy, asked, vault)
    except PolicyRefusal as refusal:
        assert refusal.code == "declined.initialisation" and "policy." in str(refusal)
        return True
    return False


@pytest.mark.parametrize("number", [0, 1, 2, 999])
def test_an_unseen_state_must_be_listed_whatever_its_round(tmp_path, number):
    vault = Vault(tmp_path, order())
    assert not refused(LISTED, order(number), vault)
    assert refused(LISTED, order(number, moved(1.0)), vault)
    assert not refused(Policy(), order(number, moved(1.0)), vault)


def test_later_states_are_within_reach_of_the_own_last_one(tmp_path):
    vault = Vault(tmp_path, order())
    keep_own(LISTED, order(), moved(1.0), vault)  # an update of length 1
    assert not refused(LISTED, order(2, moved(3.0)), vault)  # 2 from its end
    assert refused(LISTED, order(2, moved(3.01)), vault)
    assert not refused(LISTED, order(3, moved(5.0)), vault)  # it missed a round
    assert refused(LISTED, order(10**6, moved(22.0)), vault)  # but not a million
    assert not refused(LISTED, order(5, START), vault)  # the listed state is always welcome
    assert not refused(Policy(reach=None), order(2, moved(1e9)), vault)


def test_only_the_last_round_is_kept_and_another_run_is_another_vault(tmp_path):
    vault = Vault(tmp_path, order())
    keep_own(LISTED, order(), moved(1.0), vault)
    keep_own(LISTED, order(2, moved(1.0)), moved(1.5), vault)  # an update of length 0.5
    assert len(list(tmp_path.rglob("round-*.safetensors"))) == 1
    assert not refused(LISTED, order(3, moved(2.5)), vault) and refused(LISTED, order(3, moved(2.6)), vault)
    assert refused(LISTED, order(3, moved(2.5), run="b"), Vault(tmp_path, order(run="b")))


def test_a_tensor_that_was_not_there_is_no_average(tmp_path):
    vault = Vault(tmp_path, order())
    keep_own(LISTED, order(), moved(1.0), vault)
    assert refused(LISTED, order(2, {**moved(1.0), "decoder/more": torch.zeros(1)}), vault)
    assert refused(LISTED, order(2, {**moved(1.0), "decoder/bias": torch.zeros(3)}), vault)


def test_factors_that_a_rule_makes_anew_may_move_by_their_length(tmp_path):
    step = small_run(steps=["tumour_ct"]).steps["tumour_ct"]
    step.adapter.parts = {"decoder": LoraPart(rule="fedsvd")}
    vault = Vault(tmp_path, order())
    keep_own(LISTED, order(step=step), moved(1.0), vault)
    assert not refused(LISTED, order(2, moved(11.0), step=step), vault)  # length (4, 4): 5.66, twice that
    assert refused(LISTED, order(2, moved(13.0), step=step), vault)


def test_nothing_is_kept_where_nothing_is_asked(tmp_path):
    keep_own(Policy(reach=None), order(), moved(1.0), Vault(tmp_path, order()))
    assert not list(tmp_path.rglob("*.safetensors"))
