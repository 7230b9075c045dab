"""What of a round stays at a center: tensors of its own, local (FedBN) or personal (Ditto), in the vault."""

from __future__ import annotations

from collections.abc import Callable

from client.methods.drift import Correction
from client.vault.vault import Vault
from common.model.adapted import AdaptedModel
from common.protocol.declaration import local_tensors
from common.protocol.messages import Order, State

LOCAL, PERSONAL = "local", "personal"  # shelves of the vault


def own_tensors(order: Order, vault: Vault) -> State:
    """Tensors in which this center's model differs from the common one: local parts (FedBN) or all (Ditto)."""
    spec = order.step.federation
    name = PERSONAL if spec.personal is not None else LOCAL if spec.local else ""
    return vault.load(name, since=order.since) if name else {}


def keep_own(order: Order, model: AdaptedModel, vault: Vault, *, fit: Callable[[Correction], object]) -> None:
    """Into the vault: what stays local of the training just done, or a personal model, trained for itself.

    Ditto (Li et al., ICML 2021, algorithm 1): the personal model v minimizes f(v) + lambda / 2 |v - x|^2, with x
    the round's common start; the common model does not notice.

    Args:
        fit: one more round of the local loop, with this pull towards the common start.
    """
    spec = order.step.federation
    if spec.local:
        state = model.state()
        vault.save(LOCAL, {n: state[n] for n in local_tensors(state, order.step)}, order=order, keep_all=True)
    if spec.personal is None:
        return
    model.train_in_round(None)
    model.load(vault.load(PERSONAL, since=order.since) or order.state)
    fit(Correction(order.state, spec.personal))
    vault.save(PERSONAL, model.state(), order=order, keep_all=True)
