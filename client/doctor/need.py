"""What a curriculum's steps need: the frozen model's digest, and the memory of a training step, measured by doing one.

A step is tried in a process of its own with random numbers in the shape of its batches; no patient's data are used.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from client.center.config import CenterConfig, own_files
from client.doctor.finding import ERROR, NOTE, WARNING, Finding
from common.errors import FedgraftError

TIGHT = 0.8  # of the memory there is


def check_need(config: CenterConfig, overrides: Sequence[str]) -> Iterator[Finding]:
    """The base and every trained step of a run on this machine.

    Args:
        overrides: the run's, as the coordinator starts it: its curriculum, its backbone and so on.

    Raises:
        ConfigError: when they name something unknown.
    """
    from common.backbones import backbone_digest, load_backbone
    from common.config.load import compose_run, step_to_json, to_json

    run = compose_run(overrides)
    try:
        run.backbone = own_files(config, run.backbone)
        digest = backbone_digest(load_backbone(run.backbone))
    except FedgraftError as error:
        yield Finding(ERROR, "model", "The frozen model of the curriculum is not here.", str(error))
        return
    yield Finding(NOTE, "model", f"Digest of the frozen model here: {digest}.", "It must be the coordinator's.")
    if config.policy.bases and digest not in config.policy.bases:
        yield Finding(
            ERROR,
            "model",
            "The frozen model here is not on this center's allow-list (policy.bases).",
            "Install the agreed weights, or add the digest once you have agreed on it.",
        )
    for name, step in run.steps.items():
        if step.rounds > 0:
            yield from _try(config, name, to_json(run.backbone), step_to_json(step))


def _try(config: CenterConfig, name: str, backbone: str, step: str) -> Iterator[Finding]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            need = pool.submit(measure, backbone, step, config.device, config.mixed_precision).result()
        except (BrokenProcessPool, MemoryError, RuntimeError, FedgraftError) as error:
            yield Finding(
                ERROR,
                "machine",
                f"One training step of '{name}' fails on this machine ({type(error).__name__}).",
                "It needs more memory than there is: ask for a smaller batch or window, or use another machine.",
            )
            return
    there, what = _memory(config)
    severity = NOTE if need <= TIGHT * there else WARNING if need <= there else ERROR
    remedy = "" if severity == NOTE else "Free memory, or ask for a smaller batch or window."
    yield Finding(
        severity,
        "machine",
        f"Step '{name}' needs {need / 1e9:.1f} GB of {what}; there are {there / 1e9:.1f} GB.",
        remedy,
    )


def measure(backbone: str, step: str, device: str, mixed_precision: bool) -> int:
    """Bytes at the peak of one training step: of the GPU, or of the whole process on a CPU."""
    import torch

    from common.backbones import load_backbone
    from common.config.load import from_json, step_from_json
    from common.config.run import BackboneSpec
    from common.data.batch import EHR
    from common.model.adapted import AdaptedModel

    spec = step_from_json(step)
    frozen = load_backbone(from_json(BackboneSpec, backbone)).to(device)
    model = AdaptedModel(frozen, spec, seed=0).to(device).train()
    size = spec.training.batch
    inputs = {
        name: (
            frozen.tokenizer(["63 year old man ."] * size) if name == EHR else torch.rand(size, 1, *spec.view.window)
        ).to(device)
        for name in spec.modalities
    }
    present = {name: torch.ones(size, dtype=torch.bool, device=device) for name in inputs}
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=mixed_precision):
        output = model(inputs, present)
    output.float().square().mean().backward()
    torch.optim.AdamW(model.trainable_parameters()).step()
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _memory(config: CenterConfig) -> tuple[float, str]:
    """Bytes that a step may use, and of what."""
    if config.device == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info()
        return min(float(free), (config.gpu_memory_gb or float("inf")) * 1e9), "GPU memory"
    import psutil

    return float(psutil.virtual_memory().available), "memory"
