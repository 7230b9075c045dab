"""The mini tokenizer, the folder tokenizer and the bag of words."""

import pytest
import torch

from common.backbones.text import (
    SPECIALS,
    BagOfWords,
    FolderTokenizer,
    HashTokenizer,
    MiniTokenizer,
    make_vocabulary,
    read_vocabulary,
)
from common.errors import BackboneError


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(make_vocabulary(["Lung nodule is present.", "Weight 63 kg, non-smoker."])) + "\n")
    return path


def words(path, ids: torch.Tensor) -> list[list[str]]:
    tokens = read_vocabulary(path)
    return [[tokens[i] for i in row] for row in ids.tolist()]


def test_texts_become_padded_rows_that_start_with_cls(vocabulary):
    ids = MiniTokenizer(vocabulary, positions=16)(["Lung NODULE is present.", "lung"])

    assert ids.dtype == torch.int64
    assert words(vocabulary, ids) == [
        ["[CLS]", "lung", "nodule", "is", "present", ".", "[SEP]"],
        ["[CLS]", "lung", "[SEP]", "[PAD]", "[PAD]", "[PAD]", "[PAD]"],
    ]
    assert (ids == 0).sum() == 4


def test_numbers_are_read_digit_by_digit(vocabulary):
    assert words(vocabulary, MiniTokenizer(vocabulary, positions=16)(["63 kg 7"])) == [
        ["[CLS]", "6", "3", "kg", "7", "[SEP]"]
    ]


def test_unknown_words_are_spelled_and_unknown_signs_are_marked(vocabulary):
    assert words(vocabulary, MiniTokenizer(vocabulary, positions=16)(["pet 漢"])) == [
        ["[CLS]", "p", "##e", "##t", "[UNK]", "[SEP]"]
    ]


def test_long_texts_are_cut_at_the_positions(vocabulary):
    ids = MiniTokenizer(vocabulary, positions=8)(["lung " * 50])

    assert ids.shape == (1, 8)
    assert words(vocabulary, ids)[0][-1] == "[SEP]"


def test_no_texts_give_no_rows(vocabulary):
    assert MiniTokenizer(vocabulary, positions=8)([]).shape == (0, 0)


def test_a_vocabulary_that_is_not_one_is_refused(tmp_path):
    wrong = tmp_path / "vocab.txt"
    wrong.write_text("lung\nnodule\n")

    with pytest.raises(BackboneError, match=r"must begin with \[PAD\]"):
        MiniTokenizer(wrong, positions=8)
    with pytest.raises(BackboneError, match="cannot be read"):
        MiniTokenizer(tmp_path / "absent.txt", positions=8)


def test_a_local_bert_folder_is_read_like_ct_clip_reads_it(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIALS, "lung", "nodule", "##s"]) + "\n")

    ids = FolderTokenizer(tmp_path, positions=6)(["Lung nodules", "lung " * 20])

    assert ids.tolist() == [[2, 5, 6, 7, 3, 0], [2, 5, 5, 5, 5, 3]]


@pytest.mark.parametrize(("folder", "advice"), [(None, "set backbone.text_folder"), ("nowhere", "holds no vocab.txt")])
def test_without_a_folder_the_released_text_side_says_what_to_do(folder, advice):
    with pytest.raises(BackboneError, match=advice):
        FolderTokenizer(folder, positions=8)(["lung"])


def test_a_bag_of_words_knows_which_words_a_report_has_and_nothing_else():
    tokenizer, bag = HashTokenizer(256, punctuation=False), BagOfWords(256)
    ids = tokenizer(["Smoker. HPV positive.", "hpv, positive smoker smoker", "smoker"])

    one, again, other = bag(ids)

    assert torch.equal(one, again)  # order, case, repetition and punctuation do not matter
    assert one.sum() == 3
    assert other.sum() == 1
    assert torch.equal(one * other, other)
    assert bag(tokenizer(["", ""])).sum() == 0
    assert tokenizer([]).shape == (0, 1)
    assert HashTokenizer(256)(["smoker."]) != HashTokenizer(256)(["smoker"])
