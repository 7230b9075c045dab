"""GPM's directions from second moments: golden counts, growth over steps, and what is aggregated stays off them."""

import numpy as np
import pytest
import torch

from common.config.adapter import Adapter, LoraPart
from common.config.step import Step
from common.config.task import ClassificationTask
from common.protocol.keepsakes import BASIS, MOMENT
from server.methods.base import Begun, Ended
from server.methods.projection import ProjectionEnd, grown, wanted

NAME = "within/q.lora_A.weight"
STEP = Step(
    name="s",
    task=ClassificationTask(target="hpv", classes=["hpv"]),
    adapter=Adapter({"within": LoraPart()}),
    train_parts=["*"],
)


def inputs(rank, *, seed, width=6, rows=40):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=generator, dtype=torch.float64) @ torch.randn(
        rank, width, generator=generator, dtype=torch.float64
    )


def moment(x):
    return x.T @ x


@pytest.mark.parametrize(("energy", "directions"), [(0.0, 0), (0.7529, 1), (0.90, 2), (0.95, 3), (0.9882, 3), (1.0, 4)])
def test_the_golden_singular_values_want_the_golden_number_of_directions(energy, directions):
    squares = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64).square()
    assert wanted(squares, held=0.0, energy=energy, total=float(squares.sum())) == directions
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    basis = grown(torch.zeros(4, 0, dtype=torch.float64), rotation @ torch.diag(squares) @ rotation.T, energy=energy)
    assert basis.shape[1] == directions


def test_the_directions_of_moments_summed_over_centers_are_those_of_all_rows():
    one, two = inputs(3, seed=1), inputs(3, seed=2)
    pooled = grown(torch.zeros(6, 0, dtype=torch.float64), moment(torch.cat([one, two])), energy=0.9)
    summed = grown(torch.zeros(6, 0, dtype=torch.float64), moment(one) + moment(two), energy=0.9)
    _, values, vectors = torch.linalg.svd(torch.cat([one, two]))
    k = pooled.shape[1]
    assert k == int((values.square().cumsum(0) < 0.9 * values.square().sum()).sum()) + 1
    for basis in (pooled, summed):
        assert (basis @ basis.T - vectors[:k].T @ vectors[:k]).abs().max() < 1e-10


def test_a_second_step_adds_only_what_is_not_held_and_the_basis_stays_orthonormal():
    one, two = inputs(2, seed=3), inputs(2, seed=4)
    first = grown(torch.zeros(6, 0, dtype=torch.float64), moment(one), energy=1.0)
    again = grown(first, moment(one), energy=0.999)
    both = grown(first, moment(two), energy=0.999999)
    assert first.shape[1] == 2 and torch.equal(again, first) and both.shape[1] == 4
    assert (both.T @ both - torch.eye(4)).abs().max() < 1e-12
    for x in (one, two):
        assert (x - x @ both @ both.T).abs().max() < 1e-5 * x.abs().max()


def ended(x, cases=5.0):
    state = {NAME: torch.zeros(2, 6)}
    return Ended(STEP, state, "base", {MOMENT + NAME: moment(x).numpy() * cases, "fit.cases": np.array(cases)})


def test_what_is_aggregated_is_put_back_off_the_directions():
    end = ProjectionEnd(energy=1.0)
    x = inputs(2, seed=5)
    state = {NAME: torch.zeros(2, 6)}
    brought = end.brings(Begun(STEP, state, "base"), end.keeps(ended(x), {}))
    assert brought[f"projection/{BASIS}{NAME}"].shape == (6, 6)
    generator = torch.Generator().manual_seed(6)
    before, after = ({NAME: torch.randn(2, 6, generator=generator), "head/w": torch.randn(3)} for _ in range(2))
    settled = end.settled(before, after, brought)
    way = (settled[NAME] - before[NAME]).double()
    assert (way @ x.T).abs().max() < 1e-6 * x.abs().max() * 3 and way.abs().max() > 0.1
    assert settled["head/w"] is after["head/w"]
    assert "holds 1 of 1 trained tensors" in end.remarks(Begun(STEP, state, "base"), brought)


def test_at_energy_0_nothing_is_kept_and_an_aggregate_stays_itself():
    end = ProjectionEnd(energy=0.0)
    state = {NAME: torch.ones(2, 6)}
    brought = end.brings(Begun(STEP, state, "base"), end.keeps(ended(inputs(2, seed=7)), {}))
    after = {NAME: torch.rand(2, 6)}
    assert torch.equal(end.settled(state, after, brought)[NAME], after[NAME])
    said = end.remarks(Begun(STEP, state, "base"), brought)
    assert said == f"projection holds 0 of 1 trained tensors; free are {NAME}"
