"""This machine: how many cores a process may use, and what a figure depends on beside the code."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

import torch


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(device: str, threads: int) -> dict[str, Any]:
    """Versions, platform, cores, threads per worker and device."""
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "flwr": version("flwr"),
        "platform": platform.platform(),
        "cores": usable_cores(),
        "threads": threads,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }
