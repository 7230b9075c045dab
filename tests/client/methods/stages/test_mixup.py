"""Mixing within a source: a weight of 1 changes no bit, words and the attention mask go together."""

import torch

from client.methods.stages.mixup import mixed, mixed_images, mixed_words

IDS = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])


def volumes() -> torch.Tensor:
    return torch.rand(3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_weight_of_one_is_the_identity_whatever_the_others_hold():
    images, others = volumes(), torch.full((3, 1, 4, 4, 4), float("nan"))
    assert torch.equal(mixed_images(images, others, torch.ones(3)), images)


def test_images_are_weighted_case_by_case():
    images = volumes()
    found = mixed_images(images, images.flip(0), torch.tensor([1.0, 0.25, 0.0]))
    assert torch.equal(found[0], images[0]) and torch.equal(found[2], images[0])
    torch.testing.assert_close(found[1], images[1])


def test_a_swapped_word_brings_its_place_in_the_mask_along():
    swap = torch.tensor([[False, False, False, True], [True, True, True, True]])
    ids, attention = mixed_words(IDS, IDS.flip(0), swap)
    assert ids.tolist() == [[2, 7, 8, 0], [2, 7, 8, 3]]
    assert attention.tolist() == [[True, True, True, False], [True] * 4]
    assert torch.equal(attention, ids != 0)
    same, mask = mixed_words(IDS, IDS.flip(0), torch.zeros_like(swap))
    assert torch.equal(same, IDS) and torch.equal(mask, IDS != 0)


def test_a_batch_is_mixed_with_itself_and_a_seed_says_how():
    for batch in (volumes(), IDS.repeat(4, 1)):
        one, again, other = (mixed(batch, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, again) and not torch.equal(one, other)
        assert one.shape == batch.shape and one.dtype == batch.dtype
    assert set(one.unique().tolist()) <= set(IDS.unique().tolist())
