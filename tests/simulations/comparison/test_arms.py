"""Where a baseline's step starts: as the federation's does, also where it goes on with a lineage."""

import torch

from common.config.run import Run
from common.config.step import Step
from simulations.comparison.arms import StepWork, start_of

SEEDED = {"within/a": torch.zeros(2), "head/w": torch.zeros(3)}


def start(step, *before):
    steps = {one.name: one for one in (*before, step)}
    earlier = {
        one.name: {"within/a": torch.full((2,), float(n)), "head/w": torch.ones(4)} for n, one in enumerate(before, 1)
    }
    return start_of(StepWork(Run(steps=steps), step, SEEDED, "base", [], [], {}), earlier)["within/a"][0].item()


def test_a_step_starts_from_the_seed_from_the_step_it_names_or_from_its_lineages_last_writer():
    a, b, other = Step(name="a", writes="tumor"), Step(name="b", writes="tumor"), Step(name="other")
    assert start(Step(name="c"), a, b) == 0.0
    assert start(Step(name="c", starts_from="a"), a, b) == 1.0
    assert start(Step(name="c", writes="tumor"), a, b, other) == 2.0
    assert start(Step(name="c", writes="tumor", starts_from="a"), a, b) == 1.0
