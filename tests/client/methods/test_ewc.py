"""EWC's penalty and Fisher against values by hand: per patient, every old step, in evaluation mode."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from client.methods.ewc import Ewc, quadratic
from client.training import keepsakes
from client.training.keepsakes import Kept, squared_gradients
from common.config.step import Step
from common.config.task import SegmentationTask
from common.config.view import View
from common.data.batch import Batch
from common.protocol.messages import Order
from common.tasks.segmentation import Segmentation

WEIGHT = "head/weight"


class Line(nn.Module):
    """y = w x with dropout, which evaluation mode turns off."""

    def __init__(self, w: float):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w]))
        self.drop = nn.Dropout(0.5)
        self.device = torch.device("cpu")

    def named_trainable_parameters(self):
        return {WEIGHT: self.w}

    def encode(self, inputs, present):
        return inputs["x"]

    def decode(self, features, inputs, present):
        return self.drop(features * self.w)


class HalfSquare:
    def likelihood_loss(self, output, batch):
        return ((output - batch.target["y"]).square() / 2).mean()


def kept(w, xs, ys, monkeypatch, minimum=1):
    monkeypatch.setattr(Kept, "one_by_one", lambda self: ((one, None) for one in self.cases))
    cases = [Batch({"x": torch.tensor([x])}, {}, {"y": torch.tensor([y])}) for x, y in zip(xs, ys, strict=True)]
    return Kept(None, "CHUM", Line(w).eval(), HalfSquare(), cases, minimum)


def test_squares_are_of_each_patient_and_not_of_their_mean(monkeypatch):
    seen = kept(1.0, [1.0, 1.0], [3.0, -1.0], monkeypatch)  # gradients -2 and 2: their mean is 0
    assert squared_gradients(seen, [WEIGHT])[WEIGHT].tolist() == [8.0]


def test_asked_twice_the_fisher_is_the_same_to_the_bit(monkeypatch):
    seen = kept(0.3, [0.1, 0.7, 2.0], [1.0, 2.0, 3.0], monkeypatch)
    first, second = squared_gradients(seen, [WEIGHT]), squared_gradients(seen, [WEIGHT])
    assert first[WEIGHT].tobytes() == second[WEIGHT].tobytes()


@pytest.mark.parametrize(
    ("have", "told"), [(0, 0.0), (1, 0.0), (4, 0.0), (5, 5.0), (6, 6.0), (7, 0.0), (10, 0.0), (11, 11.0)]
)
def test_a_weight_that_a_few_patients_move_or_do_not_move_is_not_told(monkeypatch, have, told):
    """With a flag for x, the square is of those alone who have it, and what is left of the others' of the rest."""
    xs = [1.0] * have + [0.0] * (11 - have)
    seen = kept(1.0, xs, [2.0] * 11, monkeypatch, minimum=5)
    assert squared_gradients(seen, [WEIGHT])[WEIGHT].tolist() == [told]
    assert squared_gradients(kept(1.0, xs, [2.0] * 11, monkeypatch), [WEIGHT])[WEIGHT].tolist() == [float(have)]


def test_only_what_the_step_sends_is_summed(monkeypatch):
    seen = kept(1.0, [1.0], [0.0], monkeypatch)
    assert squared_gradients(seen, [WEIGHT, "other/weight"]).keys() == {WEIGHT}
    assert squared_gradients(seen, ["other/weight"]) == {}


def test_the_penalty_is_half_lambda_times_the_form_and_its_gradient_lambda_f_times_the_way(tmp_path):
    fisher, anchor = {WEIGHT: torch.tensor([2.0, 3.0])}, {WEIGHT: torch.tensor([1.0, -1.0])}
    x = nn.Parameter(torch.tensor([2.0, 1.0]))
    assert quadratic({WEIGHT: x}, fisher, anchor).item() == 2 * 1 + 3 * 4
    method = Ewc("ewc", 10.0, None)
    method._fisher, method._anchor = fisher, anchor
    value = method.penalty(SimpleNamespace(named_trainable_parameters=lambda: {WEIGHT: x}))
    value.backward()
    assert value.item() == 70.0 and x.grad.tolist() == [20.0, 60.0]


def test_a_part_that_rests_in_a_round_is_not_pulled():
    method = Ewc("ewc", 10.0, None)
    method._fisher = method._anchor = {WEIGHT: torch.ones(2)}
    assert method.penalty(SimpleNamespace(named_trainable_parameters=lambda: {})) is None


def test_of_a_segmentation_the_fisher_is_of_the_cross_entropy_over_annotated_voxels():
    task = Segmentation(SegmentationTask(structures=["GTVp"]))
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 5.0]])[
        None, :, :, None, None
    ].requires_grad_()  # (1, 2, 3, 1, 1)
    batch = Batch({}, {}, {"mask": torch.tensor([0, 1, 255])[None, None, :, None, None]})
    value = task.likelihood_loss(logits, batch)
    by_hand = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    assert value.item() == pytest.approx(by_hand, abs=1e-6)
    [gradient] = torch.autograd.grad(value, logits)
    assert gradient[0, :, 2].abs().max() == 0 and gradient.abs().max() > 0


def test_where_nothing_is_annotated_there_is_no_fisher_and_no_nan():
    task = Segmentation(SegmentationTask(structures=["GTVp"]))
    logits = torch.ones(1, 2, 2, 1, 1, requires_grad=True)
    value = task.likelihood_loss(logits, Batch({}, {}, {"mask": torch.full((1, 1, 2, 1, 1), 255)}))
    [gradient] = torch.autograd.grad(value, logits)
    assert value.item() == 0.0 and gradient.abs().max() == 0


def test_of_a_volume_larger_than_the_window_one_fixed_window_is_looked_at(monkeypatch):
    drawn = []

    class Cases(list):
        def collate(self, positions, *, generator):
            drawn.append((positions, torch.rand(1, generator=generator).item()))
            return Batch({}, {}, {})

    monkeypatch.setattr(keepsakes, "item", None)
    step = Step(name="s", view=View(size=[32] * 3, window=[16] * 3))
    order = Order(step, 1, 3, None, "base", None)
    seen = Kept(order, "CHUM", SimpleNamespace(device="cpu"), None, Cases([1, 2]))
    list(seen.one_by_one())
    first, drawn[:] = list(drawn), []
    list(seen.one_by_one())
    assert drawn == first and [positions for positions, _ in first] == [[0], [1]] and first[0][1] != first[1][1]
