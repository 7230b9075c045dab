"""MiB's distillation against the golden value, and exactly nothing where teacher and student agree."""

import pytest
import torch

from client.methods.mib import untold

OLD = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 1.0]])
NEW = torch.tensor([[1.0, 0.5, -0.5], [0.0, 1.0, 1.0]])


def volumes(rows):
    return rows.T[None, :, :, None, None]  # (1, C, 2, 1, 1): each row a voxel


def test_the_golden_value_but_for_the_teachers_entropy():
    """The paper's cross-entropy over classes, at temperature 1, where no structure is outlined: 0.310051."""
    found = untold(volumes(OLD), volumes(NEW), torch.tensor([False, False]))
    teacher = OLD.softmax(dim=1)
    entropy = -(teacher * OLD.log_softmax(dim=1)).sum(dim=1).mean() / 3
    assert (found + entropy).item() == pytest.approx(0.310051, abs=1e-6)


@pytest.mark.parametrize("known", [[False, False], [True, False], [True, True]])
def test_a_teacher_that_is_the_student_teaches_nothing_to_the_bit(known):
    now = volumes(OLD).clone().requires_grad_()
    loss = untold(volumes(OLD), now, torch.tensor(known))
    loss.backward()
    assert loss.item() == 0.0 and now.grad.abs().max() < 1e-7


def test_what_is_outlined_counts_as_the_rest_and_is_left_to_the_labels():
    known = torch.tensor([True, False])
    moved = volumes(OLD).clone()
    share = moved[:, :2].softmax(dim=1)
    total = moved[:, :2].logsumexp(dim=1, keepdim=True)
    moved[:, :2] = total + share.flip(1).log()  # background and the known structure swap, the unknown one stays
    assert untold(volumes(OLD), moved, known).item() == pytest.approx(0.0, abs=1e-6)
    moved[:, 2] += 1.0
    assert untold(volumes(OLD), moved, known).item() > 0.01
