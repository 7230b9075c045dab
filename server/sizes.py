"""What the same adapters would weigh on the released CT-CLIP: computed on the meta device, no weights allocated."""

from __future__ import annotations

import torch

from common.backbones.ct_clip import RELEASED, CtClip
from common.config.schema import Run
from common.model import AdaptedModel


def released_sizes(run: Run) -> dict[str, object]:
    """``released_bytes`` (step -> bytes of one message's adapter) and ``released_model_bytes`` (float32)."""
    with torch.device("meta"):
        backbone = CtClip(RELEASED)
        backbone.tokenizer = None  # type: ignore[assignment]
        steps = {
            name: 4 * sum(AdaptedModel(backbone, step, seed=run.seed).parameter_counts().values())
            for name, step in run.steps.items()
            if step.adapter.parts
        }
        size = sum(t.numel() * t.element_size() for t in backbone.state_dict().values())
    return {"released_bytes": steps, "released_model_bytes": size}
