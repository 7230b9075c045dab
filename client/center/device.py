"""The device and the threads of a center's process."""

from __future__ import annotations

import torch

from client.center.config import CenterConfig
from common.errors import ConfigError


def set_device(config: CenterConfig) -> None:
    """Threads, determinism and the share of the GPU, as center.yaml says. Raises ConfigError where there is no GPU."""
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic and config.device == "cpu")
    if config.device != "cuda":
        return
    if not torch.cuda.is_available():
        raise ConfigError(
            "This center is set to device 'cuda', but no CUDA GPU is visible; set device: cpu (runtime=laptop)."
        )
    if config.gpu_memory_gb is not None:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, config.gpu_memory_gb * 1e9 / whole))
