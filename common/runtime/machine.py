"""This machine: how many cores a process may use, and what a figure depends on beside the code."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

from common.errors import ConfigError


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_device(device: str) -> None:
    """Raises ConfigError when this process sees no GPU and is asked to use one."""
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            "runtime.device is cuda, but no CUDA GPU is visible here; set runtime.device=cpu, or check "
            "nvidia-smi and CUDA_VISIBLE_DEVICES."
        )


def environment(device: str, threads: int) -> dict[str, Any]:
    """Versions, platform, cores, threads per worker and device."""
    import torch

    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "flwr": version("flwr"),
        "platform": platform.platform(),
        "cores": usable_cores(),
        "threads": threads,
        "device": torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else device,
    }
