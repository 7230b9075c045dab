"""Where a round may start: a state that is new to this vault is held against a list, later ones against its own last.

A crafted state can make an update tell single patients. So the first state of a step that this vault has not seen,
whatever round it is said to be of, must be on `Policy.initialisations` where that names any; and a later one must lie
within `Policy.reach` times the length of this center's own last update from where that update ended. Other centers move
a state too, some further than this one; a state that jumps is not made by averaging. It bounds how fast a coordinator
can lead a model astray, not where to.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from client.policy.policy import Policy
from client.vault.vault import Vault
from common.adapters.lowrank import lora_rule
from common.backbones.base import tensors_digest
from common.config.step import Step
from common.errors import PolicyRefusal
from common.protocol.messages import Order, State

SHELF = "own"  # in the vault: where this center's last round ended, and how long its update was
END, MOVED = "end/", "moved"
LEAST_MOVED = 0.01  # of the state's length: a center whose own update was nothing still follows the others
REMADE = frozenset({"fedex", "fedsvd", "flexlora", "flora"})  # rules that make a part's factors anew each round
MOST_MISSED = 10  # rounds that a center may have missed and still be far from its last state for it


def check_start(policy: Policy, order: Order, vault: Vault) -> None:
    """Raise PolicyRefusal for a state from which this center does not train. ``order`` has its whole state."""
    if not policy.initialisations and policy.reach is None:
        return
    own = vault.latest(SHELF)
    if own is None:
        _check_first(policy, order)
    elif policy.reach is not None and not _is_listed(policy, order):
        _check_reach(policy.reach, order, *own)


def check_stage(policy: Policy, order: Order, vault: Vault) -> None:
    """The same for a finished step that is to be merged into the frozen model, where a hospital lists states: crafted
    weights in it do what they do in a first state."""
    if policy.initialisations:
        check_start(policy, order, vault)


def keep_own(policy: Policy, order: Order, leaving: Mapping[str, Tensor], vault: Vault) -> None:
    """Remember from where to where this center's update went."""
    if not policy.initialisations and policy.reach is None:
        return
    ends = {END + name: leaving.get(name, tensor) for name, tensor in order.state.items()}
    moved = _length({name: tensor - order.state[name] for name, tensor in leaving.items()})
    vault.replace(SHELF, {**ends, MOVED: torch.tensor(moved, dtype=torch.float64)}, order=order)


def _check_first(policy: Policy, order: Order) -> None:
    if not policy.initialisations or _is_listed(policy, order):
        return
    raise PolicyRefusal(
        "declined.initialisation",
        f"Step '{order.step.name}' starts here from adapter state {tensors_digest(order.state)[:12]} (round "
        f"{order.round}), which is not listed in policy.initialisations.",
    )


def _is_listed(policy: Policy, order: Order) -> bool:
    return tensors_digest(order.state) in policy.initialisations


def _check_reach(reach: float, order: Order, last: int, own: State) -> None:
    missed = min(max(abs(order.round - last), 1), MOST_MISSED)
    ends = {name.removeprefix(END): t for name, t in own.items() if name.startswith(END)}
    shared = sorted(set(ends) & set(order.state))
    moved = max(float(own[MOVED]), LEAST_MOVED * _length(ends))
    remade = {n: ends[n] for n in shared if _is_remade(n.partition("/")[0], order.step)}
    allowed = reach * missed * max(moved, _length(remade))
    same = [n for n in shared if order.state[n].shape == ends[n].shape]
    jump = _length({n: order.state[n] - ends[n] for n in same})
    if jump > allowed or len(same) < len(order.state):
        raise PolicyRefusal(
            "declined.initialisation",
            f"Round {order.round} of step '{order.step.name}' starts {jump:.3g} from where this center's round {last} "
            f"ended; its own update was {moved:.3g} long, and policy.reach allows {allowed:.3g}.",
        )


def _is_remade(part: str, step: Step) -> bool:
    spec = step.adapter.parts.get(part)
    return spec is not None and spec.kind == "lora" and lora_rule(spec) in REMADE


def _length(tensors: Mapping[str, Tensor]) -> float:
    squares = [float(t.double().square().sum()) for t in tensors.values() if t.is_floating_point()]
    return float(sum(squares)) ** 0.5
