"""What this machine can do: device, memory, disk, folders and clock, against what the center's file asks."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from client.center.config import CenterConfig
from client.doctor.finding import ERROR, NOTE, WARNING, Finding
from client.policy.explain import explained
from common.errors import ConfigError
from common.runtime.machine import usable_cores

FULL_GB, TIGHT_GB = 1.0, 10.0
RELEASED = 1_767_225_600  # 2026-01-01: no clock that is right shows an earlier time


def check_machine(config: CenterConfig) -> Iterator[Finding]:
    """Everything about the machine that needs no server."""
    yield from _device(config)
    yield from _folder("cache", Path(config.cache), "Prepared volumes")
    yield from _folder("vault", Path(config.vault), "The record of what left and the table of codes")
    yield from _vault(Path(config.vault), Path(config.root))
    yield from _policy(config)
    now = time.time()
    if now < RELEASED:
        clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
        yield Finding(ERROR, "machine", f"The clock says {clock}.", "Set it, and keep it with NTP.")


def _policy(config: CenterConfig) -> Iterator[Finding]:
    """A policy that cannot be read stops every message."""
    try:
        explained(config.policy)
    except ConfigError as error:
        yield Finding(ERROR, "policy", str(error), "Change it in center.yaml; until then nothing runs.")


def _device(config: CenterConfig) -> Iterator[Finding]:
    import torch

    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        yield Finding(
            ERROR, "machine", "device is cuda, but no CUDA GPU is visible.", "Set device: cpu, or install the driver."
        )
    if config.device == "cpu" and has_gpu:
        yield Finding(NOTE, "machine", "There is a CUDA GPU, but device is cpu.", "Set device: cuda to use it.")
    if config.device not in ("cpu", "cuda"):
        yield Finding(ERROR, "machine", f"device is '{config.device}'.", "Write cpu or cuda.")
    if config.threads > usable_cores():
        yield Finding(
            WARNING,
            "machine",
            f"threads is {config.threads}, but this machine lets us use {usable_cores()} cores.",
            "Lower it: more threads than cores slow training down.",
        )


def _folder(name: str, folder: Path, holds: str) -> Iterator[Finding]:
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield Finding(
            ERROR,
            "machine",
            f"{name} ({folder}) cannot be written ({error.strerror}).",
            f"{holds} go there: change it.",
        )
        return
    free = shutil.disk_usage(there).free / 1e9
    if free < TIGHT_GB:
        yield Finding(
            ERROR if free < FULL_GB else WARNING,
            "machine",
            f"There are {free:.1f} GB free for {name} ({folder}).",
            f"{holds} go there: free space or name another folder.",
        )


def _vault(vault: Path, root: Path) -> Iterator[Finding]:
    if vault.exists() and os.name == "posix" and stat.S_IMODE(vault.stat().st_mode) & 0o077:
        yield Finding(WARNING, "privacy", "Others on this machine may look into the vault.", f"chmod 700 {vault}")
    if vault.resolve().is_relative_to(root.resolve()):
        yield Finding(
            WARNING,
            "privacy",
            "The vault lies inside the data folder.",
            "Move it: whoever copies the images would copy the table of codes too.",
        )
