"""What a coordinator that sees secure sums alone is left with: the product's own sum of several centers' numbers.

Masks cancel to the bit (tests say so), so what is opened is the sum of the centers' integers, and that is what is
attacked here: `common.privacy.masking.numbers`, and nobody's own numbers beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.privacy.masking.numbers import Form, decoded, encoded

CENTERS = 7  # of a sum, all honest: who colludes with the coordinator takes its own numbers out
BOUND = 100.0  # of a number here: gradients and adapters of a few dozen numbers, trained with large steps


def opened_mean(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several centers' vectors, as a secure sum opens it."""
    form = Form(BOUND, 1.0, len(parts))
    total = np.asarray(np.sum([encoded(form, part, 1.0) for part in parts], axis=0, dtype=np.uint32))
    return decoded(form, total)[0]


def opened_state(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The same of named tensors of one shape each."""
    first = states[0]
    flat = [np.concatenate([state[name].detach().double().numpy().ravel() for name in first]) for state in states]
    mean, at, found = torch.from_numpy(opened_mean(flat)), 0, {}
    for name, tensor in first.items():
        found[name], at = mean[at : at + tensor.numel()].view(tensor.shape).to(tensor.dtype), at + tensor.numel()
    return found
