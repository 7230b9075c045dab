"""Boxes of masks: each connected piece, never the whole grid; the largest slice; mirrored like the image."""

import numpy as np
import torch

from client.data.boxes import box_targets
from client.data.images.transforms import augment
from common.data.batch import Batch
from common.metrics.detection import MOST_TRUTHS


def mask_of(*pieces, side=8):
    mask = torch.zeros(1, side, side, side, dtype=torch.uint8)
    for value, low, high in pieces:
        mask[0, low[0] : high[0], low[1] : high[1], low[2] : high[2]] = value
    return mask


def rows(target):
    return [tuple(int(v) for v in row) for row in target["boxes"] if row[0] >= 0]


def test_a_cube_is_its_own_box_and_not_the_grid():
    """TRAPS 16: with MONAI's default background a 4^3 mask gives the whole 8^3 box."""
    found = box_targets(mask_of((1, (2, 2, 2), (6, 6, 6))), structures=2, slices=False)
    assert rows(found) == [(0, 2, 2, 2, 6, 6, 6)] and found["slice"] == -1
    assert found["boxes"].shape == (MOST_TRUTHS, 7) and found["size"].tolist() == [8, 8, 8]


def test_two_pieces_of_one_structure_are_two_boxes_and_two_structures_that_touch_are_two():
    pieces = mask_of((1, (0, 0, 0), (2, 2, 2)), (1, (5, 5, 5), (8, 8, 8)), (2, (0, 0, 2), (2, 2, 4)))
    found = rows(box_targets(pieces, structures=2, slices=False))
    assert found[0] == (0, 5, 5, 5, 8, 8, 8)  # the largest first
    assert sorted(found[1:]) == [(0, 0, 0, 0, 2, 2, 2), (1, 0, 0, 2, 2, 2, 4)]


def test_nobody_drew_there_and_a_structure_that_is_not_asked_for_are_no_boxes():
    assert rows(box_targets(mask_of((255, (0, 0, 0), (4, 4, 4))), structures=2, slices=False)) == []
    assert rows(box_targets(mask_of((3, (0, 0, 0), (4, 4, 4))), structures=2, slices=False)) == []


def test_a_slice_is_where_the_structures_are_largest_and_boxes_in_it_are_flat():
    pieces = mask_of((1, (1, 1, 1), (4, 3, 3)), (1, (3, 1, 1), (4, 5, 6)))
    found = box_targets(pieces, structures=1, slices=True)
    assert found["slice"] == 3 and rows(found) == [(0, 3, 1, 1, 4, 5, 6)]
    assert box_targets(mask_of(), structures=1, slices=True)["slice"] == 4


def test_more_pieces_than_a_table_holds_keep_the_largest():
    mask = torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    mask[0, ::4, ::4, ::4] = 1  # 27 single voxels
    mask[0, 10:12, 10:12, 10:12] = 1
    found = rows(box_targets(mask, structures=1, slices=False))
    assert len(found) == MOST_TRUTHS and found[0] == (0, 10, 10, 10, 12, 12, 12)


def test_boxes_are_mirrored_as_their_masks_are():
    mask = mask_of((1, (1, 2, 5), (4, 6, 8)))
    target = {n: t[None] for n, t in box_targets(mask, structures=1, slices=False).items()} | {"mask": mask[None]}
    batch = Batch({"CT": torch.zeros(1, 1, 8, 8, 8)}, {"CT": torch.ones(1, dtype=torch.bool)}, target)
    seen = set()
    for seed in range(8):
        turned = augment(batch, generator=torch.Generator().manual_seed(seed)).target
        [again] = [rows({"boxes": turned["boxes"][0]})]
        assert again == rows(box_targets(turned["mask"][0], structures=1, slices=False))
        assert (turned["boxes"][0, 1:] == -1).all()
        seen.add(tuple(again))
    assert len(seen) == 2 and np.all(turned["size"].numpy() == 8)
