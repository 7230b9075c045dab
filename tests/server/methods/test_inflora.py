"""InfLoRA's rows: the main directions of new inputs off the old ones, and what rests is put back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config.adapter import Adapter, LoraPart
from common.config.methods.continual import InfLoraMethod
from common.config.step import Step
from common.config.task import ClassificationTask
from common.protocol.keepsakes import MOMENT, USED, opening
from server.methods.base import Begun, Ended, KeepsakeMissing
from server.methods.inflora import InfLoraEnd, rows_off

READS, WRITES = "within/q.lora_A.weight", "within/q.lora_B.weight"
STEP = Step(
    name="s",
    task=ClassificationTask(target="hpv", classes=["hpv"]),
    adapter=Adapter({"within": LoraPart(rank=4, rule="ffa")}),
    train_parts=["*"],
)
NONE = torch.zeros(6, 0, dtype=torch.float64)


def inputs(rank, *, seed, width=6, rows=40):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=generator, dtype=torch.float64) @ torch.randn(
        rank, width, generator=generator, dtype=torch.float64
    )


def sums(x, cases=5.0):
    return {MOMENT + READS: (x.T @ x).numpy() * cases, "fit.cases": np.array(cases)}


def start():
    return {READS: torch.full((4, 6), 0.25), WRITES: torch.zeros(3, 4), "head/w": torch.ones(2)}


def test_golden_rows_axis_by_axis():
    """Old inputs along axis 0; new ones have energies 9, 4, 1 along axes 0, 1 and 2: axis 1 is first, then 2."""
    moment = torch.diag(torch.tensor([9.0, 4, 1, 0, 0, 0], dtype=torch.float64))
    old = torch.eye(6, dtype=torch.float64)[:, :1]
    assert rows_off(NONE, moment, rows=2).tolist() == torch.eye(6)[[0, 1]].tolist()
    found = rows_off(old, moment, rows=3)
    assert found[:2].tolist() == torch.eye(6)[[1, 2]].tolist()
    assert not found[2].any(), "nothing is left for a third"


def test_rows_are_those_of_the_svd_of_all_centers_raw_inputs_and_old_inputs_do_not_see_them():
    """As the paper has it: the right singular vectors of H (I - M M^T), here from sums of two centers' moments."""
    old, one, two = inputs(2, seed=1), inputs(6, seed=2), inputs(6, seed=3)
    basis, _ = torch.linalg.qr(old.T[:, :2])
    found = rows_off(basis, one.T @ one + two.T @ two, rows=2)
    pooled = torch.cat([one, two])
    _, _, vectors = torch.linalg.svd(pooled - pooled @ basis @ basis.T, full_matrices=False)
    assert (found.T @ found - vectors[:2].T @ vectors[:2]).abs().max() < 1e-10
    assert (found @ found.T - torch.eye(2)).abs().max() < 1e-12
    assert (old @ found.T).abs().max() < 1e-6 * old.abs().max()


def test_each_step_makes_the_next_rows_off_what_the_steps_before_it_saw():
    end, state, old, new = InfLoraEnd(energy=1.0, rank=2), start(), inputs(2, seed=4), inputs(6, seed=5)
    first = end.opens(Begun(STEP, state, "base"), sums(old), {})
    assert torch.equal(first[READS][2:], state[READS][2:]) and torch.equal(first[WRITES], state[WRITES])
    kept = end.keeps(Ended(STEP, first, "base", sums(old)), {})
    assert kept[USED] == 2 and end.brings(Begun(STEP, first, "base"), kept) == {"inflora/used": torch.tensor(2)}
    second = end.opens(Begun(STEP, first, "base"), sums(new), kept)
    assert torch.equal(second[READS][:2], first[READS][:2])
    scale = float(old.abs().max())
    assert (old @ second[READS][2:].double().T).abs().max() < 1e-6 * scale * 3
    assert (old @ first[READS][:2].double().T).abs().max() > 0.1, "its own inputs a step does see"
    assert second[READS].double().norm(dim=1).tolist() == pytest.approx([3**-0.5] * 4, abs=1e-6)
    assert second["head/w"] is state["head/w"]
    said = end.remarks(Begun(STEP, second, "base"), {"inflora/used": torch.tensor(2)})
    assert said == "inflora makes rows 3 to 4 of 4 this step's own in 1 layers"


def test_where_earlier_steps_leave_nothing_a_row_is_zero_and_the_run_says_so():
    end = InfLoraEnd(energy=1.0, rank=2)
    kept = end.keeps(Ended(STEP, start(), "base", sums(inputs(6, seed=6))), {})
    second = end.opens(Begun(STEP, start(), "base"), sums(inputs(6, seed=7)), kept)
    assert not second[READS][2:].any()
    said = end.remarks(Begun(STEP, second, "base"), {"inflora/used": torch.tensor(2)})
    assert said.endswith("; in 1 of them earlier steps leave fewer directions than that")


@pytest.mark.parametrize("used", [0, 3])
def test_rows_that_are_in_use_or_not_there_are_refused_in_a_sentence(used):
    end, state = InfLoraEnd(energy=1.0, rank=2), start() | {WRITES: torch.ones(3, 4)}
    with pytest.raises(KeepsakeMissing, match=rf"makes rows {used + 1} to {used + 2} of part 'within' its own"):
        end.opens(Begun(STEP, state, "base"), sums(inputs(2, seed=8)), {USED: torch.tensor(used)})


def test_columns_that_rest_are_put_back_to_the_bit_after_a_mean():
    end, before = InfLoraEnd(rank=1), {WRITES: torch.full((3, 4), 0.1), "head/w": torch.ones(2)}
    after = {WRITES: before[WRITES] * (1 + 2**-23) + 0, "head/w": torch.zeros(2)}
    found = end.settled(before, after, {"inflora/used": torch.tensor(2)})
    assert [torch.equal(found[WRITES][:, k], before[WRITES][:, k]) for k in range(4)] == [True, True, False, True]
    assert torch.equal(found[WRITES][:, 2], after[WRITES][:, 2]) and found["head/w"] is after["head/w"]
    assert InfLoraEnd(rank=0).settled(before, after, {}) is after


def test_at_rank_0_nobody_is_asked_before_a_round_nor_where_nothing_trains():
    asking = {
        (rank, rounds): opening(replace(STEP, methods=[InfLoraMethod(rank=rank)], rounds=rounds))
        for rank, rounds in ((0, 1), (1, 1), (1, 0))
    }
    assert asking == {(0, 1): [], (1, 1): ["inflora"], (1, 0): []}
