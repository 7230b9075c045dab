"""Presets: choices of a group that need no file, because a registry or a few parts already say all of it.

``adapter=[decoder, lora_image, pet]`` composes pieces; a preset is a name for such a list. A file of ``configs/`` with
the same name would come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.adapter import (
    DecoderPart,
    FullPart,
    FusionPart,
    LinearPart,
    LoraPart,
    MlpPart,
    PatchEmbedPart,
    ResolutionPart,
    SkipPart,
    UnetPart,
    UptakePart,
    VoxelLinearPart,
)
from common.config.federation import FEDERATIONS
from common.config.privacy import PRIVACIES, NoPrivacy
from common.config.run import Data, Runtime
from common.config.task import GroundingTask, PrognosisTask, SegmentationTask

# Tensors that a decoder makes use of.
IMAGE_SIDE = ["*", "!text_transformer*", "!to_text_latent*", "!to_visual_latent*", "!temperature*"]
PET = {"stem_pet": PatchEmbedPart(), "skip_pet": SkipPart()}

PIECES: dict[str, dict[str, Any]] = {  # piece of an adapter -> its parts, or what it changes of a part before it
    "none": {},  # the frozen model as it is
    "decoder": {"decoder": DecoderPart()},  # a UNETR-style decoder on the frozen encoder
    "linear_voxels": {"decoder": {"style": "linear"}},  # ... in its place one linear layer to the voxels
    "lora": {"within": LoraPart()},  # inside both encoders
    "lora_image": {"within": LoraPart(sites=["image_attention"])},
    "lora_shared": {"within": LoraPart(sites=["image_attention", "image_feedforward"])},  # of a dimension_free encoder
    "lora_text": {"within": LoraPart(sites=["text_attention"])},
    "pet": PET,  # PET's patch embedding and full-resolution skip
    "pet_copy": PET | {"stem_pet": PatchEmbedPart(init="copy")},  # the same, the embedding starting from CT's
    "pet_stem": {"stem_pet": PatchEmbedPart()},  # PET's patch embedding alone, for what has no decoder
    "unet": {"unet": UnetPart()},  # a small U-Net from random weights instead of any frozen model
    "uptake": {"uptake": UptakePart()},  # PET's absolute SUV to logits, past every norm
    "image": {"image": MlpPart(input="image")},  # after the image encoder; with ``fusion``
    "text": {"text": MlpPart(input="text")},  # after the text encoder; with ``fusion``
    "fusion": {"fusion": FusionPart()},  # joins what stands after the encoders
    "resolution": {"stem": ResolutionPart()},  # the task's own CT patch embedding and positions
    "everything": {"full": FullPart(tensors=IMAGE_SIDE)},  # every tensor of the image side trained, not only adapters
    "from_scratch": {"full": FullPart(tensors=IMAGE_SIDE, scratch=True)},  # ... from random values
    "encoder": {"encoder": FullPart()},  # every tensor of the encoder trained but words', the lineage of stages
    "exact_voxels": {"voxels": VoxelLinearPart()},  # a linear model of every voxel, for federation=newton
    "linear": {"linear": LinearPart()},  # a linear head on frozen features and records, for federation=newton
}

ADAPTERS: dict[str, tuple[str, ...]] = {  # preset -> its pieces
    "both_pma": ("image", "text", "fusion"),
    "decoder_lora": ("decoder", "lora_image"),
    "decoder_lora_pet": ("decoder", "pet", "lora_image"),
    "decoder_pet": ("decoder", "pet"),
    "encoder_decoder": ("encoder", "decoder"),
    "full_ct": ("decoder", "everything"),
    "full_pet": ("decoder", "pet_copy", "everything"),
    "image_pet_prognosis": ("lora_image", "image", "fusion", "pet_stem"),
    "image_pma": ("image", "fusion"),
    "image_prognosis": ("lora_image", "image", "fusion"),
    "lora_linear": ("decoder", "linear_voxels", "lora_image"),
    "lora_linear_pet": ("decoder", "linear_voxels", "lora_image", "pet_stem"),
    "ngram_prognosis": ("lora_image", "image", "text", "fusion"),
    "pet_prognosis": ("lora_image", "image", "text", "fusion", "pet_stem"),
    "scratch": ("decoder", "from_scratch"),
    "scratch_pet": ("decoder", "pet_copy", "from_scratch"),
    "text_pma": ("text", "fusion"),
    "text_wma": ("text", "fusion", "lora_text"),
    "unicon_prognosis": ("lora", "image", "text", "fusion"),
    "unicon_prognosis_whole": ("lora", "image", "text", "fusion", "resolution"),
    "unicon_tumour": ("decoder", "lora_image", "resolution"),
    "unicon_tumour_pet": ("decoder", "pet", "lora_image", "resolution"),
}

PLAIN: dict[str, dict[str, Any]] = {  # group -> choice -> the options themselves
    "task": {
        **{loss: PrognosisTask(loss=loss) for loss in ("cox", "deephit", "hazard", "mtlr")},
        "grounding": GroundingTask(phrases={"GTVp": "primary tumor", "GTVn": "lymph node"}),
        "tumour": SegmentationTask(),
    },
    "data": {"phantom": Data(), "hecktor": Data(kind="folder", root="")},
    "runtime": {"laptop": Runtime()},
}


def presets() -> Mapping[str, Mapping[str, Any]]:
    """Group -> choice -> a node for Hydra's config store."""
    pieces = {name: {"parts": dict(parts)} for name, parts in PIECES.items()}
    adapters = {name: {"defaults": list(made_of)} for name, made_of in ADAPTERS.items()}
    return {
        **PLAIN,
        "federation": FEDERATIONS,
        "privacy": {"none": NoPrivacy, **PRIVACIES},
        "adapter": {**pieces, **adapters},
    }
