"""Low-rank parts in peft's own format, where they are peft's: adapter_config.json and the factors by peft's names.

A rule with a frozen side factor (`fedex`, `flora`) or a middle matrix (`fedsb`) is more than peft's LoRA and has no
such file; the bundle's program holds it all the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file

from common.adapters.lora import target_modules
from common.adapters.lowrank import FEDSB, WITH_SIDE, lora_rule
from common.backbones.base import Backbone
from common.config.adapter import LoraPart
from common.files import write_bytes
from common.model.adapted import AdaptedModel

PREFIX = "base_model.model."  # peft's, before the names of the model that it wraps


def write_peft(folder: Path, model: AdaptedModel, backbone: Backbone) -> list[str]:
    """Write each plain low-rank part of a model to a folder of its own; their names.

    Args:
        backbone: the frozen model as it was before the parts went in.

    ``peft.PeftModel.from_pretrained(frozen_model, folder / name)`` reads one.
    """
    plain = {name: spec for name, spec in model.specs.items() if isinstance(spec, LoraPart) and _is_plain(spec)}
    for name, spec in plain.items():
        _write(folder / name, name, spec, model, backbone)
    return sorted(plain)


def _is_plain(spec: LoraPart) -> bool:
    return lora_rule(spec) != FEDSB and lora_rule(spec) not in WITH_SIDE


def _write(folder: Path, name: str, spec: LoraPart, model: AdaptedModel, backbone: Backbone) -> None:
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]
        lora_dropout=spec.dropout,
        target_modules=sorted(target_modules(backbone, spec)),
        use_dora=spec.dora,
        bias="none",
        inference_mode=True,
    )
    said = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    write_bytes(
        folder / "adapter_config.json", (json.dumps(said, indent=1, sort_keys=True, default=str) + "\n").encode()
    )
    own = {n.partition("/")[2]: t for n, t in model.state().items() if n.partition("/")[0] == name}
    save_file(
        {PREFIX + path: tensor.contiguous() for path, tensor in own.items()}, folder / "adapter_model.safetensors"
    )
