"""What real sizes cost: ``python -m simulations bench sizes`` times one training step and one inference of each.

Random weights and random volumes, batch 1, bf16 autocast, one adapter configuration per model. The loss is the mean
square of the output: its cost is that of any loss on voxels or bins. Milliseconds are medians after warm-up; memory is
the device's peak during the case (on a CPU: the process's peak so far). On a GPU that takes seconds, on a CPU minutes,
so there it must be asked for.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from common.backbones import load_backbone
from common.config.adapter import Adapter, DecoderPart, LoraPart, MlpPart
from common.config.run import BackboneSpec
from common.config.step import Step
from common.config.task import PrognosisTask, SegmentationTask
from common.data.batch import CT
from common.errors import ConfigError, UnknownName
from common.files import write_json
from common.model.adapted import AdaptedModel

WARM_UP = 2


@dataclass(frozen=True)
class Case:
    """One model at one size.

    Args:
        size: (depth, height, width) voxels of the volume.
        parts: the adapter; with a decoder the task is segmentation, else prognosis.
    """

    backbone: BackboneSpec
    size: tuple[int, int, int]
    parts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one training step and one inference, and the peak of memory in MB (10^6 bytes)."""

    train_ms: float
    infer_ms: float
    peak_mb: float
    trained_parameters: int
    frozen_parameters: int


QUERY_VALUE = LoraPart(sites=["image_query_value"], rank=4, alpha=4.0)
EVERY_LAYER = LoraPart(sites=["image_attention", "image_feedforward"])


def _segmentation(kind: str, config: str, lora: LoraPart, decoder: DecoderPart) -> Case:
    parts = {"within": lora, "decoder": decoder}
    return Case(BackboneSpec(kind=kind, config=config, random_seed=0), (96, 96, 96), parts)


def _prognosis(kind: str, config: str, size: tuple[int, int, int]) -> Case:
    parts = {"within": EVERY_LAYER, "image_mlp": MlpPart()}
    return Case(BackboneSpec(kind=kind, config=config, random_seed=0), size, parts)


REAL = {
    "unetr_fs16": _segmentation("unetr", "vit_b", QUERY_VALUE, DecoderPart(features=16)),
    "unetr_fs48": _segmentation("unetr", "vit_b", QUERY_VALUE, DecoderPart(features=48)),
    "swin_unetr_fs48": _segmentation("swin_unetr", "base", EVERY_LAYER, DecoderPart(features=8, style="light")),
    "ct_clip": _prognosis("ct_clip", "released", (240, 480, 480)),
}


def bench_sizes(
    out: Path,
    *,
    cases: dict[str, Case] | None = None,
    only: Sequence[str] = (),
    cpu: bool = False,
    repeats: int = 5,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Time every case, or those named in ``only``, write the figures to ``out`` as JSON and return them.

    Raises:
        ConfigError: there is no GPU and ``cpu`` was not asked for.
        UnknownName: ``only`` names no case.
    """
    cases = REAL if cases is None else cases
    for name in only:
        if name not in cases:
            raise UnknownName("real size", name, cases, where="bench sizes --only")
    if not torch.cuda.is_available() and not cpu:
        raise ConfigError(
            "There is no GPU here, and real sizes take minutes each on a CPU; run this where CUDA is, or give --cpu."
        )
    device = torch.device("cpu" if cpu else "cuda")
    costs: dict[str, Cost] = {}
    for name in only or cases:
        say(f"bench sizes: {name}")
        costs[name] = measure(cases[name], device, repeats=repeats)
    found = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "precision": "bf16 autocast over float32 weights",
        "batch": 1,
        "repeats": repeats,
        "cases": {name: asdict(cases[name]) | asdict(cost) for name, cost in costs.items()},
    }
    write_json(out, found)
    return found


def measure(case: Case, device: torch.device, *, repeats: int) -> Cost:
    """The cost of one case; deterministic but for the clock."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = _model(case, device)
    generator = torch.Generator().manual_seed(0)
    inputs = {CT: (torch.rand(1, 1, *case.size, generator=generator) * 2 - 1).to(device)}
    present = {CT: torch.ones(1, dtype=torch.bool, device=device)}
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-4)

    def train() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            output = model(inputs, present)
        output.float().square().mean().backward()
        optimizer.step()

    @torch.no_grad()
    def infer() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            model(inputs, present)

    train_ms = _median_ms(train, device, repeats)
    model.eval()
    infer_ms = _median_ms(infer, device, repeats)
    trained = sum(p.numel() for p in model.trainable_parameters())
    every = sum(p.numel() for p in model.parameters())
    return Cost(train_ms, infer_ms, _peak_mb(device), trained, every - trained)


def _model(case: Case, device: torch.device) -> AdaptedModel:
    task = SegmentationTask() if "decoder" in case.parts else PrognosisTask()
    step = Step(name="bench", task=task, modalities=[CT], adapter=Adapter(dict(case.parts)))
    return AdaptedModel(load_backbone(case.backbone).to(device), step, seed=0).train()


def _median_ms(work: Callable[[], None], device: torch.device, repeats: int) -> float:
    times = []
    for number in range(WARM_UP + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def sizes_table(found: dict[str, Any]) -> Table:
    """The figures for the console."""
    table = Table(title=f"one step at real size: {found['device']}, {found['precision']}, batch {found['batch']}")
    for column in ("model", "voxels", "trained", "frozen", "training step ms", "inference ms", "peak MB"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, case in found["cases"].items():
        table.add_row(
            name,
            " x ".join(map(str, case["size"])),
            f"{case['trained_parameters']:,}",
            f"{case['frozen_parameters']:,}",
            f"{case['train_ms']:,.1f}",
            f"{case['infer_ms']:,.1f}",
            f"{case['peak_mb']:,.0f}",
        )
    return table
