"""How a case becomes tensors: spacing, crop, window, intensities."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class View:
    """How a case becomes tensors, identical at every center. Axes are ordered (depth z, height y, width x)."""

    spacing_mm: list[float] = field(default_factory=lambda: [3.0, 3.0, 3.0])  # of the voxels after resampling
    size: list[int] | None = field(default_factory=lambda: [48, 48, 48])  # voxels of the crop; null: whole volume
    window: list[int] = field(default_factory=lambda: [48, 48, 48])  # what the network sees at once
    crop: str = (
        "head_neck"  # head_neck (label-free rule on a CT), foreground (around what is no background), center, none
    )
    ct_hu: list[float] = field(default_factory=lambda: [-1024.0, 1024.0])  # clipped to this, scaled to [-1, 1]
    pet: str = "zscore"  # zscore over the crop, or suv (clipped to [0, 25], divided by 25)
    # Of each other volume, as {MR: percentiles}: zscore over the crop's voxels that are not 0 (which stay 0), or
    # percentiles (0.5 and 99.5 of those voxels become -1 and 1, the rest is clipped). One that is not named: zscore.
    intensities: dict[str, str] = field(default_factory=dict)
    # Where test cases of a segmentation are scored: ct, on the reference image's own grid, against the label as drawn;
    # training, on this view's grid, against the label brought there. Rounds are chosen on the view's grid either way.
    score_on: str = "ct"
    overlap: float = 0.5  # of the windows that a larger crop is predicted by, on each axis
    # Axes (depth, height, width) along which crops are mirrored too when they are predicted, all combinations averaged.
    mirrors: list[str] = field(default_factory=list)
