"""Rules on pieces of an answer: which ones go, by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from client.training.tidying import has_rules, tidied
from common.config.step import Step
from common.config.task import SegmentationTask
from common.config.view import View


def step(spacing=10.0, **options) -> Step:
    view = View(spacing_mm=[spacing] * 3, size=[8] * 3, window=[8] * 3)
    return Step(name="s", task=SegmentationTask(**{"structures": ["GTVp", "GTVn"]} | options), view=view)


def answer() -> torch.Tensor:
    """Structure 1: pieces of 8 and 2 voxels; structure 2: one piece of 3 voxels, and one voxel."""
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    labels[0, :2, :2, :2] = 1
    labels[0, 5, 5, 5:7] = 1
    labels[0, 0, 7, 4:7] = 2
    labels[0, 7, 0, 0] = 2
    return 3.0 * F.one_hot(labels, 3).movedim(-1, 1).float()


def volumes(output: torch.Tensor) -> list[int]:
    return [int((output.argmax(dim=1) == place).sum()) for place in (1, 2)]


def test_without_rules_the_answer_is_the_answer():
    output = answer()
    assert not has_rules(step()) and tidied(output, step()) is output


def test_only_the_largest_piece_of_each_structure_stays():
    found = tidied(answer(), step(largest_component=True))
    assert volumes(found) == [8, 3]
    assert found[0, :, 5, 5, 5].tolist() == [30.0, -30.0, -30.0]  # certain background
    assert torch.equal(found[0, :, 0, 0, 0], answer()[0, :, 0, 0, 0])  # what stays keeps its logits


def test_small_pieces_go_by_their_volume_not_their_voxels():
    assert volumes(tidied(answer(), step(smallest_ml=2.5))) == [8, 3]  # a voxel is one ml
    assert volumes(tidied(answer(), step(smallest_ml=3.0))) == [8, 3]
    assert volumes(tidied(answer(), step(smallest_ml=3.1))) == [8, 0]
    assert volumes(tidied(answer(), step(spacing=20.0, smallest_ml=3.1))) == [10, 4]


def test_a_structure_within_another_belongs_to_its_piece():
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    labels[0, 1, 1, 1:5] = 1
    labels[0, 1, 1, 3] = 2  # a core that parts the outer structure's own voxels in two
    output = 3.0 * F.one_hot(labels, 3).movedim(-1, 1).float()
    inside = step(largest_component=True, within={"GTVp": ["GTVn"]})
    assert torch.equal(tidied(output, inside), output)
