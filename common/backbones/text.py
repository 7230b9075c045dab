"""Text sides: CT-CLIP's BERT of any size with its tokenizers (CXR-BERT's own, or the mini one), and a bag of words.

The bag of words stands in where a backbone is an image encoder alone (UNETR, Swin UNETR): a report becomes the set of
its words, without weights, so that a step may still look at EHR.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from common.backbones.base import Text
from common.errors import BackboneError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Pieces
    from transformers import BertModel

PAD, UNKNOWN, START, END, MASK = SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the BERT; the defaults are CXR-BERT's."""

    vocabulary: int = 30522
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    positions: int = 512


def build_bert(config: TextConfig) -> BertModel:
    """A BERT encoder without dropout: frozen features must not depend on the mode a trainer happens to be in."""
    from transformers import BertConfig, BertModel

    sizes = BertConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        max_position_embeddings=config.positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=config.hidden**-0.5,  # BERT's 0.02 at a width of 64 reads every text as the same vector
        attn_implementation="eager",  # type: ignore[call-arg]  # transformers takes it through **kwargs
    )
    return BertModel(sizes)


class MiniTokenizer:
    """Lower-case WordPiece over a small vocabulary file; numbers are read digit by digit."""

    def __init__(self, vocabulary: Path, *, positions: int):
        self._pieces = _word_pieces(read_vocabulary(vocabulary))
        self._pieces.enable_truncation(positions)
        self._pieces.enable_padding(pad_id=0, pad_token=PAD)

    def __call__(self, texts: Text) -> Tensor:
        """Token ids, int64 (B, L): [CLS] first, 0 = padding, cut at the model's positions."""
        rows = [row.ids for row in self._pieces.encode_batch(list(texts))]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(rows[0]) if rows else 0)


class FolderTokenizer:
    """The tokenizer of a local Hugging Face folder, such as BiomedVLP-CXR-BERT-specialized; never the network.

    Like CT-CLIP, it reads the folder's vocabulary as a plain lower-case BERT's: the folder's own tokenizer class is
    code, and no code from a weights folder is run. The folder is opened at the first use.
    """

    def __init__(self, folder: str | Path | None, *, positions: int):
        self.folder = folder
        self.positions = positions
        self._tokenizer: Any = None

    def __call__(self, texts: Text) -> Tensor:
        """Token ids, int64 (B, L): [CLS] first, 0 = padding, cut at the model's positions."""
        if self._tokenizer is None:
            self._tokenizer = _open_folder(self.folder)
        if not texts:
            return torch.zeros(0, 0, dtype=torch.int64)
        rows = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.positions, return_tensors="pt"
        )
        return rows["input_ids"]


class HashTokenizer:
    """Words to buckets 1 .. buckets - 1 by CRC-32; 0 is padding. It needs no vocabulary file.

    Args:
        punctuation: whether "smoker." and "smoker" are two words.
    """

    def __init__(self, buckets: int, *, punctuation: bool = True):
        self.buckets = buckets
        self.punctuation = punctuation

    def __call__(self, texts: Text) -> Tensor:
        """Bucket numbers, int64 (B, L), L >= 1."""
        rows = [[1 + zlib.crc32(word.encode()) % (self.buckets - 1) for word in self._words(text)] for text in texts]
        length = max([1, *(len(row) for row in rows)])
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64).reshape(-1, length)

    def _words(self, text: str) -> list[str]:
        words = text.lower().split()
        return words if self.punctuation else [word.strip(".,;:()") for word in words]


class BagOfWords(nn.Module):
    """Bucket numbers (B, L) to float (B, buckets): 1 where the report has a word of the bucket. No parameters."""

    def __init__(self, buckets: int):
        super().__init__()
        self.buckets = buckets

    def forward(self, ids: Tensor) -> Tensor:
        counts = torch.zeros(len(ids), self.buckets, device=ids.device)
        counts.scatter_(1, ids, 1.0)
        counts[:, 0] = 0  # padding
        return counts


def read_vocabulary(path: Path) -> list[str]:
    """The tokens of a vocabulary file, one per line, in id order; the first is the padding."""
    try:
        tokens = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise BackboneError(f"The vocabulary {path} cannot be read ({error}); restore it from the release.") from error
    if tuple(tokens[: len(SPECIALS)]) != SPECIALS or len(set(tokens)) != len(tokens):
        raise BackboneError(f"The vocabulary {path} must begin with {' '.join(SPECIALS)} and name each token once.")
    return tokens


def make_vocabulary(texts: Iterable[str]) -> list[str]:
    """Specials, single characters (so that any word can be spelled), then every word of the texts in ABC order."""
    characters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,;:/%()+-'"]
    splitter = _word_pieces([*SPECIALS])
    assert splitter.normalizer is not None and splitter.pre_tokenizer is not None
    words: set[str] = set()
    for text in texts:
        normal = splitter.normalizer.normalize_str(text)
        words.update(word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(normal))
    continued = [f"##{letter}" for letter in characters[:26]]
    return [*SPECIALS, *characters, *continued, *sorted(words - set(characters))]


def _word_pieces(tokens: list[str]) -> Pieces:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(tokens)}
    pieces = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    pieces.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return pieces


def _open_folder(folder: str | Path | None) -> Any:
    if folder is None:
        raise BackboneError(
            "The released CT-CLIP reads reports with CXR-BERT's vocabulary: set backbone.text_folder to a local copy "
            "of BiomedVLP-CXR-BERT-specialized."
        )
    from transformers import BertTokenizer

    vocabulary = Path(folder) / "vocab.txt"
    if not vocabulary.is_file():
        raise BackboneError(f"backbone.text_folder {folder} holds no vocab.txt; copy the whole CXR-BERT folder there.")
    tokenizer = BertTokenizer.from_pretrained(str(folder), do_lower_case=True, local_files_only=True)
    if tokenizer.pad_token_id != 0:
        raise BackboneError(
            f"The vocabulary of {folder} pads with id {tokenizer.pad_token_id}; fedgraft takes 0 for padding."
        )
    return tokenizer
