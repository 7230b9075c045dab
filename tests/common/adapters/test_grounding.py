"""GLIP's score of a region and a word, by its formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from common.adapters.grounding import LIMIT, NO_WORD, GroundingHead


@pytest.fixture
def head():
    torch.manual_seed(0)
    return GroundingHead(5, 4, width=3, sides=6)


def test_the_score_is_that_of_the_formula(head):
    x, words = torch.randn(2, 3), torch.randn(1, 2, 4)
    head.scale.data.fill_(0.7)
    head.word_bias.data.copy_(torch.randn(4))
    by_hand = torch.zeros(2, 1, 2)
    for region in range(2):
        for word in range(2):
            e = F.normalize(words[0, word], dim=0)
            product = x[region] @ (head.query.weight @ (e / 2)) / math.exp(0.7)
            by_hand[region, 0, word] = product + e @ head.word_bias + head.bias
    torch.testing.assert_close(head.score(x, words), by_hand)


def test_scores_are_clamped_and_a_word_that_is_none_is_below_all(head):
    head.scale.data.fill_(-30.0)
    found = head.score(torch.randn(4, 3), torch.randn(1, 2, 4))
    assert found.abs().max() == LIMIT and NO_WORD < -LIMIT
    output = head(torch.randn(1, 5, 2, 2, 2), torch.randn(2, 2, 4), torch.tensor([[True, True], [True, False]]))
    assert output.shape == (1, 2 * 2 + 6, 2, 2, 2)
    assert (output[:, 3] == NO_WORD).all() and (output[:, :3].abs() <= LIMIT).all()


def test_at_first_a_word_is_rare_and_the_longer_embedding_is_not_the_likelier(head):
    words = torch.randn(1, 1, 4)
    assert head.bias.sigmoid().item() == pytest.approx(0.01)
    torch.testing.assert_close(head.score(torch.ones(3), words), head.score(torch.ones(3), 9 * words))
