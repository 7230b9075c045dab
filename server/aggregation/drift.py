"""The server's side of SCAFFOLD and FedDyn: corrections of client drift that need state at both ends.

Both keep one float64 tensor per trained tensor in memory (``control/<name>``), which the checkpoint stores. Both weigh
by the share of all the step's centers, there or not (`Setting.total_weight`): a center that is absent keeps its say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from common.errors import AdapterError
from common.protocol.messages import State
from server.aggregation.mean import means
from server.aggregation.types import Aggregated, Setting, Update, canonical

CONTROL = "control/"


def scaffold(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """SCAFFOLD (Karimireddy et al., ICML 2020, algorithm 1, option II); the rule ``scaffold``.

    x <- x + eta (mean - x),  c <- c + sum_i (w_i / W) (c_i' - c_i), with W over all the step's centers.

    A center takes steps y <- y - lr (g - c_i + c), sets c_i' = c_i - c + (x - y) / (K lr), keeps c_i in its vault and
    sends c_i' - c_i as ``Update.extra["control/<name>"]`` with y; the order carries c. Twice the bytes both ways.

    Raises:
        AdapterError: for an update that carries a tensor without its control.
    """
    ordered = canonical(updates)
    total = _total(ordered, setting)
    state, kept = dict(start), dict(memory)
    for name, mean in means(ordered, start=start).items():
        control = torch.zeros(start[name].shape, dtype=torch.float64)
        if CONTROL + name in memory:
            control = memory[CONTROL + name].clone()
        for update in (update for update in ordered if name in update.state):
            if CONTROL + name not in update.extra:
                raise AdapterError(f"The update of {update.center} has no control for '{name}', which SCAFFOLD needs.")
            control += update.extra[CONTROL + name].to(torch.float64) * (update.weight / total)
        kept[CONTROL + name] = control
        moved = start[name] + setting.federation.learning_rate * (mean - start[name])
        state[name] = moved.to(start[name].dtype)
    return Aggregated(state, kept)


def feddyn(updates: Sequence[Update], start: State, memory: State, setting: Setting) -> Aggregated:
    """FedDyn (Acar et al., ICLR 2021, algorithm 1); the rule ``feddyn``.

    h <- h - alpha sum_i (w_i / W) (x_i - x),  x <- mean - h / alpha, with W over all the step's centers.

    A center minimizes f(y) - <g_i, y> + alpha / 2 |y - x|^2 and sets g_i <- g_i - alpha (y - x) in its vault. No more
    bytes than the mean.
    """
    ordered = canonical(updates)
    total, alpha = _total(ordered, setting), setting.federation.alpha
    state, kept = dict(start), dict(memory)
    for name, mean in means(ordered, start=start).items():
        share = sum(update.weight for update in ordered if name in update.state) / total
        drift = share * (mean - start[name])
        earlier = memory[CONTROL + name] if CONTROL + name in memory else torch.zeros_like(drift)
        kept[CONTROL + name] = earlier - alpha * drift
        state[name] = (mean - kept[CONTROL + name] / alpha).to(start[name].dtype)
    return Aggregated(state, kept)


def _total(updates: list[Update], setting: Setting) -> float:
    """What all the step's centers weigh; where that is not known, those that replied are all.

    A secure sum gives one update for each part, so that those who replied weigh what those of one tensor do.
    """
    if setting.total_weight is None:
        return sum(update.weight for update in updates)
    replied: dict[str, float] = {}
    for update in updates:
        for name in update.state:
            replied[name] = replied.get(name, 0.0) + update.weight
    return max(setting.total_weight, *replied.values(), 0.0)
