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


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and random: for code we do not own (dropout, peft's initialisation)."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
