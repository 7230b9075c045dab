"""CtClip: CT-CLIP's image and text encoders as one frozen backbone, from the released size down to a mini one.

State names are the released checkpoint's, so ``CT-CLIP_v2.pt`` loads as it is; what the checkpoint carries beyond
the two encoders and their projections (decoder remnants, unused copies) is dropped by name.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.base import Backbone, Features, Join, NativeView, between_ends
from common.backbones.checkpoint import load_into, read_state
from common.backbones.ctvit import Ctvit, CtvitConfig, Encoded
from common.backbones.text import FolderTokenizer, MiniTokenizer, TextConfig, build_bert
from common.backbones.tokens import callable_join, embed, joined, keep, presence
from common.data.batch import CT, EHR
from common.errors import BackboneError


def _mini_folder() -> Path:
    """The shipped files; a Flower bundle cannot carry them, there they are found under ``$FEDGRAFT_HOME/backbones``."""
    shipped, home = Path(__file__).parent / "mini", os.environ.get("FEDGRAFT_HOME")
    return shipped if (shipped / "vocab.txt").exists() or home is None else Path(home) / "backbones" / "mini"


MINI_FOLDER = _mini_folder()
MINI_WEIGHTS = MINI_FOLDER / "ct_clip_mini.safetensors"

_IMAGE_LAYER = r"visual_transformer\.enc_(?:spatial|temporal)_transformer\.layers\.(\d+)"
_TEXT_LAYER = r"text_transformer\.encoder\.layer\.(\d+)"
SITES = {
    "image_attention": rf"{_IMAGE_LAYER}\.1\.(?:to_q|to_kv|to_out)",
    "image_feedforward": rf"{_IMAGE_LAYER}\.3\.(?:1|4)",
    "text_attention": rf"{_TEXT_LAYER}\.attention\.self\.(?:query|value)",
}
_DROPPED = re.compile(
    r"text_transformer\.embeddings\.position_ids"
    r"|to_(?:text|visual)_latent_extra\..*"
    r"|visual_transformer\.(?:to_pixels|to_pixels_first_frame|to_patch_emb_first_frame)\..*"
)

RELEASED_VIEW = NativeView((1.5, 0.75, 0.75), (240, 480, 480), (-1000.0, 1000.0))


@dataclass(frozen=True)
class CtClipConfig:
    """Sizes of both encoders and of the space they share.

    Args:
        visual_pooling: how tokens become the image latent: ``flatten`` (mean over depth, then a projection that fits
            the native height and width only: the released model) or ``global`` (mean over all tokens, any grid).
        vocabulary: the mini vocabulary file; None: the released text side, whose vocabulary is in `text_folder`.
    """

    image: CtvitConfig = field(default_factory=CtvitConfig)
    text: TextConfig = field(default_factory=TextConfig)
    dim_latent: int = 512
    visual_pooling: str = "flatten"
    native: NativeView = RELEASED_VIEW
    vocabulary: Path | None = None

    @property
    def visual_features(self) -> int:
        """Inputs of the visual projection."""
        side = self.image.image_size // self.image.patch_size
        return self.image.dim * (side * side if self.visual_pooling == "flatten" else 1)


RELEASED = CtClipConfig()
MINI = CtClipConfig(
    image=CtvitConfig(
        dim=96, codebook_size=256, image_size=32, patch_size=8, temporal_patch_size=8, dim_head=32, heads=3
    ),
    text=TextConfig(vocabulary=512, hidden=64, layers=2, heads=4, intermediate=256, positions=128),
    dim_latent=96,
    visual_pooling="global",
    native=NativeView((9.0, 9.0, 9.0), (32, 32, 32), (-1000.0, 1000.0)),
    vocabulary=MINI_FOLDER / "vocab.txt",
)


class CtClip(Backbone):
    """CT-CLIP. Volumes arrive scaled to [-1, 1] from ``native.ct_hu``, on any grid of whole patches.

    Args:
        config: sizes; `MINI`, `RELEASED` or one's own.
        text_folder: a local CXR-BERT folder, for the released text side's vocabulary.
        projection: False leaves out `to_visual_latent` (151 M of the released 437 M parameters), which only
            zero-shot scoring needs and, when it flattens, only on the native grid.
    """

    to_visual_latent: nn.Linear | None

    def __init__(self, config: CtClipConfig, *, text_folder: str | Path | None = None, projection: bool = True):
        super().__init__()
        self.config = config
        self.visual_transformer = Ctvit(config.image)
        self.text_transformer = build_bert(config.text)
        self.to_visual_latent = nn.Linear(config.visual_features, config.dim_latent, bias=False) if projection else None
        self.to_text_latent = nn.Linear(config.text.hidden, config.dim_latent, bias=False)
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self._describe(text_folder)
        self._prompts: dict[tuple, Tensor] = {}

    def _describe(self, text_folder: str | Path | None) -> None:
        image, text = self.config.image, self.config.text
        self.sites = dict(SITES)
        depth = max(image.spatial_depth, image.temporal_depth)
        self.blocks = {"image_attention": depth, "image_feedforward": depth, "text_attention": text.layers}
        self.patch = image.patch
        self.image_dim, self.text_dim = image.dim, text.hidden
        self.native = self.config.native
        if self.config.vocabulary is None:
            self.tokenizer = FolderTokenizer(text_folder, positions=text.positions)
        else:
            self.tokenizer = MiniTokenizer(self.config.vocabulary, positions=text.positions)

    def ct_stem(self) -> nn.Module:
        """The CT patch embedding, for stems that start as a copy of it."""
        return self.visual_transformer.to_patch_emb

    # ------------------------------------------------------------------------------------------------- features

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        stems: Mapping[str, nn.Module] | None = None,
        *,
        join: Join | str | None = None,
        position: nn.Module | None = None,
    ) -> Features:
        """Features of a batch, as `Backbone.forward` says.

        ``pyramid`` holds four hidden states before quantisation and ``pooled["image"]`` the mean of all quantised
        tokens; both are zero for a case that has neither CT nor any modality with a stem. Without any such input the
        pyramid is empty. ``pooled["text"]`` is the report's [CLS] vector, there if ``EHR`` is among the inputs.
        """
        pyramid: list[Tensor] = []
        image = self.temperature.new_zeros(len(next(iter(inputs.values()))), self.image_dim)
        tokens = embed(self.ct_stem(), inputs, present, stems or {})
        if tokens is not None:
            encoded = self.visual_transformer.encode(joined(tokens, callable_join(join)), position)
            pyramid = [keep(x.permute(0, 4, 1, 2, 3), tokens.seen) for x in encoded.hidden]
            image = keep(encoded.quantized.mean(dim=(1, 2, 3)), tokens.seen)
        pooled = {"image": image}
        if EHR in inputs:
            pooled["text"] = self._text_features(inputs[EHR], presence(present, EHR, inputs[EHR]))
        return Features(pyramid, pooled)

    def own_position(self, grid: tuple[int, int, int]) -> nn.Module:
        """A trainable copy of the position bias network, which fits any grid."""
        return copy.deepcopy(self.visual_transformer.spatial_rel_pos_bias).requires_grad_(True)

    def _text_features(self, ids: Tensor, there: Tensor) -> Tensor:
        # An absent report is all padding; it is read as one [PAD] so that attention has something to look at.
        mask = (ids != 0) | ~there[:, None]
        return keep(self.read(ids, mask), there)

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """[CLS] vectors (B, text_dim) of tokenised texts (B, L); the mask, by default ids != 0, says what is read."""
        mask = ids != 0 if mask is None else mask
        return self.text_transformer(input_ids=ids, attention_mask=mask.long()).last_hidden_state[:, 0]

    def words_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The BERT's last hidden states."""
        states = self.text_transformer(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        return states, between_ends(ids)

    # ------------------------------------------------------------------------------------------------ zero-shot

    def image_latent(self, ct: Tensor) -> Tensor:
        """Unit vectors (B, dim_latent) of volumes (B, 1, D, H, W).

        Raises:
            BackboneError: the projection was left out, or flattens and does not fit this grid.
        """
        projection = self._projection_for(ct)
        encoded: Encoded = self.visual_transformer(ct)
        if self.config.visual_pooling == "flatten":
            pooled = encoded.quantized.mean(dim=1).flatten(1)
        else:
            pooled = encoded.quantized.mean(dim=(1, 2, 3))
        return F.normalize(projection(pooled), dim=-1)

    def _projection_for(self, ct: Tensor) -> nn.Linear:
        native = self.native.size[1:]
        if self.to_visual_latent is None:
            raise BackboneError(
                "This CT-CLIP was loaded without its visual projection, so it cannot score findings by prompts; "
                "load it with projection=True."
            )
        if self.config.visual_pooling == "flatten" and tuple(ct.shape[-2:]) != native:
            raise BackboneError(
                f"Zero-shot scoring with this CT-CLIP works on its native height and width {native} only, got "
                f"{tuple(ct.shape[-2:])}; set the step's view to spacing_mm={list(self.native.spacing_mm)} and "
                f"size={list(self.native.size)}, or train a head."
            )
        return self.to_visual_latent

    def text_latent(self, ids: Tensor) -> Tensor:
        """Unit vectors (B, dim_latent) of tokenised texts (B, L), 0 = padding."""
        return F.normalize(self.to_text_latent(self.read(ids)), dim=-1)

    @torch.no_grad()
    def zero_shot(self, inputs: Mapping[str, Tensor], classes: Sequence[str]) -> Tensor:
        """Log-odds (B, len(classes)) that each pathology is present, from CT-CLIP's pairs of prompts.

        The softmax over "{pathology} is present." and "{pathology} is not present." is the sigmoid of this number.
        """
        if CT not in inputs:
            raise BackboneError(f"Zero-shot scoring reads CT, but the batch holds {', '.join(sorted(inputs))}.")
        image = self.image_latent(inputs[CT])
        present, absent = self._prompt_latents(tuple(classes))
        return (image @ (present - absent).T) * self.temperature.exp()

    def _prompt_latents(self, classes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Latents of both prompts per class, kept until a text weight changes or an adapter is attached."""
        text_side = [*self.text_transformer.parameters(), *self.to_text_latent.parameters()]
        key = (classes, *((p.data_ptr(), p._version) for p in text_side))
        if key not in self._prompts or self._text_is_adapted():
            ids = self.tokenizer([prompt(name, present=yes) for yes in (True, False) for name in classes])
            self._prompts = {key: self.text_latent(ids.to(self.temperature.device))}
        present, absent = self._prompts[key].chunk(2)
        return present, absent

    def _text_is_adapted(self) -> bool:
        # An adapter can be switched without touching a weight, which the cache's key would not see.
        return any(hasattr(module, "base_layer") for module in self.text_transformer.modules())


def prompt(pathology: str, *, present: bool) -> str:
    """CT-CLIP's sentence for a finding, or for its absence."""
    return f"{pathology} is present." if present else f"{pathology} is not present."


# ------------------------------------------------------------------------------------------------------- loading


def load_checkpoint(backbone: CtClip, path: str | Path) -> None:
    """Loads a plain state dict (.pt or .safetensors) with CT-CLIP's names into the backbone.

    Decoder remnants, the unused ``*_extra`` projections and ``position_ids`` are dropped; ``to_visual_latent`` is
    dropped where the backbone has none. Everything else must match.

    Raises:
        BackboneError: the file is missing, is no plain state dict, or its keys do not fit (all of them named).
    """
    state = {name: tensor for name, tensor in read_state(path).items() if not _DROPPED.fullmatch(name)}
    if backbone.to_visual_latent is None:
        state.pop("to_visual_latent.weight", None)
    load_into(backbone, state, what="this CT-CLIP", source=path)
