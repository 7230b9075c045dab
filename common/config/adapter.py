"""The parts that a step may graft onto the frozen model, with their options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from common.plugins import Registry


@dataclass
class LoraPart:
    """Low-rank updates inside the frozen backbone (UNICON's within-model adaptation)."""

    kind: str = "lora"
    sites: list[str] = field(default_factory=lambda: ["image_attention", "text_attention"])  # names in backbone.sites
    rank: int = 8  # 16 doubles what travels each round
    alpha: float = 16.0  # updates are scaled by alpha / rank
    dropout: float = 0.1  # of the inputs of the updates, in training
    depth: int | None = None  # only the last k blocks of each stack; null: all
    dora: bool = False  # directions and row norms apart (DoRA)
    # How factors are aggregated: fedit, ffa, rolora, fedsvd, fedsb, flora, fedex, flexlora; empty: rolora (exact, half
    # the bytes), for dora the exact stack (flora).
    rule: str = ""
    ranks: dict[str, int] = field(default_factory=dict)  # center -> a rank of its own below ``rank`` (flora, flexlora)
    side_rank: int = 32  # flora, fedex: room of the task's frozen side factor; what does not fit is reported
    refresh_every: int = 1  # fedsvd: rounds between two new bases


@dataclass
class MlpPart:
    """One modality's embedding, adapted after the model (UNICON's post-model adaptation)."""

    kind: str = "mlp"
    input: str = "image"  # image or text
    width: int = 64  # of the hidden layer
    dropout: float = 0.1  # after the hidden layer, in training


@dataclass
class FusionPart:
    """Joins the adapted embeddings of the modalities that are present."""

    kind: str = "fusion"
    width: int = 64  # of the hidden layer
    dropout: float = 0.1  # after the hidden layer, in training
    mode: str = "mlp"  # mlp (side by side), or attention (embeddings ask each other and the image tokens)


@dataclass
class DecoderPart:
    """Hidden states, and where the style has one a skip from the CT volume, to voxel logits."""

    kind: str = "decoder"
    features: int = 8  # channels at full resolution
    style: str = "auto"  # unetr (one grid), light (narrow, any pyramid), linear (one layer, no skip); auto: by pyramid
    deep_supervision: bool = False  # coarser levels answer too in training, each against the mask at its resolution


@dataclass
class FullPart:
    """Tensors of the backbone itself, copied and trained: the baseline that every adapter is compared with."""

    kind: str = "full"
    # Patterns of whole tensor names of the backbone: * stands for any text, and !pattern leaves out what it matches.
    tensors: list[str] = field(default_factory=lambda: ["*"])
    scratch: bool = False  # start from seeded random values instead of the pretrained ones


@dataclass
class ResolutionPart:
    """UNICON's resolution adaptation: the task's own CT patch embedding and its own position parameters."""

    kind: str = "resolution"
    patch: list[int] | None = None  # voxels (depth, height, width) of a token; null: the backbone's, starting as a copy
    position: bool = True  # the backbone's position parameters, copied (ViT: its table, interpolated) and trained


@dataclass
class PatchEmbedPart:
    """A patch embedding for a modality that the backbone has never seen."""

    kind: str = "patch_embed"
    modality: str = "PET"  # whose tokens it makes
    init: str = "zero"  # zero: attaching changes no output bit; copy: starts from the CT embedding
    place: str = "add"  # add: to the CT tokens; beside: in one sequence with them (PEMMA on a plain ViT)


@dataclass
class JoinPart:
    """CT and PET tokens side by side in their channels, projected to one set of tokens (PEMMA on Swin: 96 to 48)."""

    kind: str = "join"


@dataclass
class StandInPart:
    """Expands the tokens of the only modality that a case has to the width of both, in front of the join (PEMMA)."""

    kind: str = "stand_in"
    modality: str = "PET"  # the one that is there


@dataclass
class SkipPart:
    """A full-resolution skip from a new modality, added to the CT skip (PEMMA's PET skip connection)."""

    kind: str = "skip"
    modality: str = "PET"  # whose volume it reads
    features: int = 8  # must equal the decoder's


@dataclass
class UnetPart:
    """A small residual U-Net from random weights that reads the images and no frozen model; it ends in logits."""

    kind: str = "unet"
    widths: list[int] = field(default_factory=lambda: [24, 24, 48, 96])  # channels at 1/2, 1/4, 1/8 and at the bottom


@dataclass
class UptakePart:
    """A PET's absolute uptake, SUV and log(1 + SUV), to logits added to the decoder's: nothing normalises it."""

    kind: str = "uptake"
    modality: str = "PET"  # whose volume it reads, in SUV (view.pet=suv)
    width: int = 8  # of the hidden layer, voxel by voxel


@dataclass
class LinearPart:
    """A linear model on frozen features and records, fitted by federation=newton; it is the step's head."""

    kind: str = "linear"
    variables: list[str] = field(default_factory=list)  # of the clinical schema, for modality RECORD; empty: all
    known_flags: bool = True  # false: the ablation without the flags that say what is recorded, and so where
    harmonize: str = ""  # combat: location and scale of each frozen feature are brought together over the centers


@dataclass
class VoxelLinearPart:
    """A linear model of every voxel on frozen features, fitted by federation=newton; it ends in logits."""

    kind: str = "voxel_linear"
    levels: list[int] | None = (
        None  # of the frozen model's pyramid; []: none, null: the finest of at most 0.5 MB of sums
    )
    raw: bool = True  # the volumes' own values are columns too
    blurs: list[float] = field(default_factory=list)  # ... and they through Gaussians of so many voxels
    log_suv: bool = False  # ... and log(1 + SUV) of a PET in SUV (view.pet=suv)
    voxels: int = 4000  # drawn of each training case, by a seed
    inside: float = 0.5  # share of them from inside the structures, where there are enough


@dataclass
class Adapter:
    """Named parts. Everything that a step trains, and everything that travels."""

    parts: dict[str, Any] = field(default_factory=dict)


PARTS: Registry[type] = Registry(
    "adapter part",
    "spec",
    {
        "decoder": DecoderPart,
        "full": FullPart,
        "fusion": FusionPart,
        "join": JoinPart,
        "linear": LinearPart,
        "lora": LoraPart,
        "mlp": MlpPart,
        "patch_embed": PatchEmbedPart,
        "resolution": ResolutionPart,
        "skip": SkipPart,
        "stand_in": StandInPart,
        "unet": UnetPart,
        "uptake": UptakePart,
        "voxel_linear": VoxelLinearPart,
    },
)
EXACT = ("linear", "voxel_linear")  # kinds that are fitted from sums
INSIDE = ("full", "join", "lora", "patch_embed", "resolution", "stand_in")  # kinds that work inside the encoder
ROLES: Registry[str] = Registry("adapter part", "role", {kind: kind for kind in PARTS.shipped})


def role_of(part: Any) -> str:
    """The shipped kind in whose place a part stands: its own kind, or what its plugin says."""
    return ROLES.get(part.kind, part.kind)
