"""Seeds from logical names only: the run, the step, the center's code and the round, never Flower's node ids."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_for(*names: str | int) -> int:
    """A 63-bit seed from names, the same on every machine: ``seed_for(run_seed, "relapse", "CHUM", 3)``."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(*names: str | int) -> torch.Generator:
    """A CPU generator seeded by names."""
    return torch.Generator().manual_seed(seed_for(*names))


def seed_torch(seed: int) -> None:
    """Seed torch's global generators of this machine.

    `torch.manual_seed` does the same, and for every kind of device that is not here it keeps a call with its stack
    trace until that device appears: milliseconds and memory each time, and a step seeds hundreds of times.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and random: for code we do not own (dropout, peft's initialisation)."""
    seed_torch(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
