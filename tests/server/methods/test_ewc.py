"""Steps added up: one quadratic form is the sum of all of them, whoever shares a part."""

import numpy as np
import pytest
import torch

from common.config.adapter import Adapter, LoraPart
from common.config.step import Step
from common.config.task import ClassificationTask
from common.protocol.keepsakes import ANCHOR, FISHER, TASKS
from server.methods import brought
from server.methods.base import Begun, Ended
from server.methods.ewc import EwcEnd, OnlineEwcEnd

HPV, STAGE = ClassificationTask(target="hpv", classes=["hpv"]), ClassificationTask(target="t_stage", classes=["T4"])
A, HEAD = "within/a", "head/w"


def step(task=HPV):
    return Step(name="s", task=task, adapter=Adapter({"within": LoraPart()}))


def ended(at, fisher, cases=4.0, task=HPV):
    state = {A: torch.tensor(at), HEAD: torch.tensor(at)}
    sums = {FISHER + name: np.array(fisher) * cases for name in state}
    return Ended(step(task), state, "base", {**sums, "fit.cases": np.array(cases)})


FIRST, SECOND = ended([1.0, 2.0], [3.0, 0.0], cases=4.0), ended([-1.0, 5.0], [1.0, 0.0], cases=10.0)


def form(end, kept, x, name=A, task=HPV):
    sent = end.brings(Begun(step(task), FIRST.state, "base"), kept)
    return (sent[f"{end.kind}/{FISHER}{name}"] * (x - sent[f"{end.kind}/{ANCHOR}{name}"]).square()).sum()


def test_the_fisher_is_a_mean_over_all_centers_patients():
    """Two centers: sums 12 of 4 patients and 2 of 2 are 14 / 6, which is sum n_i / n F_i."""
    told = {FISHER + A: np.array([12.0 + 2.0]), "fit.cases": np.array(6.0)}
    kept = EwcEnd().keeps(Ended(step(), {A: torch.ones(1)}, "base", told), {})
    [found] = [tensor for name, tensor in kept.items() if name.startswith(FISHER)]
    assert found.item() == pytest.approx(4 / 6 * 3.0 + 2 / 6 * 1.0)


def test_every_old_step_is_in_the_form_up_to_a_constant():
    end = EwcEnd()
    kept = end.keeps(SECOND, end.keeps(FIRST, {}))
    assert kept[TASKS].item() == 2
    points = [torch.tensor([x, 0.0]) for x in (-2.0, 0.0, 1.0, 4.0)]
    apart = [3.0 * (x[0] - 1) ** 2 + 1.0 * (x[0] + 1) ** 2 for x in points]
    constants = {round(float(a - form(end, kept, x)), 4) for a, x in zip(apart, points, strict=True)}
    assert constants == {3.0}  # 3 * 1 / (3 + 1) * (1 - (-1)) ** 2


def test_the_first_steps_anchor_is_its_end_to_the_bit():
    state = {A: torch.tensor([0.1, 1 / 3])}
    told = {FISHER + A: np.array([0.7, 0.0]), "fit.cases": np.array(3.0)}
    end = EwcEnd()
    sent = end.brings(Begun(step(), state, "base"), end.keeps(Ended(step(), state, "base", told), {}))
    assert torch.equal(sent[f"ewc/{ANCHOR}{A}"], state[A])


def test_online_the_anchor_is_the_last_end_and_the_fisher_fades():
    end = OnlineEwcEnd(decay=0.5)
    kept = end.keeps(SECOND, end.keeps(FIRST, {}))
    sent = end.brings(Begun(step(), FIRST.state, "base"), kept)
    assert sent[f"online_ewc/{FISHER}{A}"].tolist() == [0.5 * 3 + 1, 0.0]
    assert torch.equal(sent[f"online_ewc/{ANCHOR}{A}"], SECOND.state[A])


def test_online_a_hundred_equal_steps_stay_below_the_geometric_bound():
    end, kept = OnlineEwcEnd(decay=0.9), {}
    for _ in range(100):
        kept = end.keeps(FIRST, kept)
    assert end.brings(Begun(step(), FIRST.state, "base"), kept)[f"online_ewc/{FISHER}{A}"][0] == pytest.approx(
        30, rel=1e-3
    )


def test_a_head_of_another_question_is_not_held_and_held_again_when_its_question_comes_back():
    end = EwcEnd()
    kept = end.keeps(ended([9.0, 9.0], [7.0, 7.0], task=STAGE), end.keeps(FIRST, {}))
    sent = end.brings(Begun(step(), FIRST.state, "base"), kept)
    assert sent[f"ewc/{FISHER}{HEAD}"].tolist() == [3.0, 0.0]
    assert sent[f"ewc/{FISHER}{A}"].tolist() == [10.0, 7.0]


def test_a_part_that_is_declared_otherwise_is_not_held():
    kept = EwcEnd().keeps(FIRST, {})
    other = Step(name="s", task=STAGE, adapter=Adapter({"within": LoraPart(rank=4)}))
    assert EwcEnd().brings(Begun(other, FIRST.state, "base"), kept).keys() == {f"ewc/{TASKS}"}


def test_the_seed_is_the_start_of_nothing():
    from common.config.methods.continual import EwcMethod

    one = step()
    one.methods = [EwcMethod()]
    assert {n: t.item() for n, t in brought(Begun(one, FIRST.state, "base"), {}).items()} == {f"ewc/{TASKS}": 0}


def test_what_was_learned_on_another_frozen_model_is_not_held():
    kept = EwcEnd().keeps(FIRST, {})
    assert EwcEnd().brings(Begun(step(), FIRST.state, "grown"), kept).keys() == {f"ewc/{TASKS}"}
