"""What is declared of each kind of frozen model without building it: what sides its volumes may have.

The models take their patches from here, so that a window which does not fit is refused before PyTorch is imported.
"""

from __future__ import annotations

from common.config.run import BackboneSpec

Triple = tuple[int, int, int]

SHIPPED = ("ct_clip", "mini")  # the weights that come with fedgraft
MULTIPLES: dict[str, dict[str, Triple]] = {
    "ct_clip": {"mini": (8, 8, 8), "released": (10, 20, 20)},
    "dimension_free": {"tiny": (8, 8, 8), "vit_b": (16, 16, 16)},
    "shapes": {"base": (8, 8, 8), "small": (8, 8, 8)},
    "swin_unetr": {"base": (32, 32, 32), "small": (32, 32, 32)},
    "tiny": {"any": (8, 8, 8)},
    "unetr": {"small": (8, 8, 8), "vit_b": (16, 16, 16)},
}
"""Kind -> configuration -> (depth, height, width) voxels: a volume's sides are whole multiples of these."""


def declared_multiple(spec: BackboneSpec) -> Triple | None:
    """What the sides of a window must be multiples of; None for a model that declares nothing here."""
    configs = MULTIPLES.get(spec.kind, {})
    return configs.get(spec.config, configs.get("any"))
