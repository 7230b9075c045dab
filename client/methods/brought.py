"""What an order brings of earlier steps for one method: there, and the same in every round of the step."""

from __future__ import annotations

from client.training.job import Job
from client.vault.vault import Vault
from common.backbones.base import tensors_digest
from common.errors import FedgraftError
from common.protocol.messages import State


class KeepsakeProblem(FedgraftError):
    """What a method goes on from is missing or has changed: the code travels, the sentence stays on site."""

    code = "keepsake"


def brought(job: Job, vault: Vault, kind: str) -> State:
    """The order's arrays of one kind of method, by names without the kind.

    Raises:
        KeepsakeProblem: the order brings none, or others than in an earlier round of the step.
    """
    order, mark = job.order, f"{kind}/"
    found = {name.removeprefix(mark): t for name, t in order.extra.items() if name.startswith(mark)}
    if not found:
        raise KeepsakeProblem(
            f"Step '{order.step.name}' lists {kind}, and the order says nothing of what earlier steps kept for it, not "
            "even that there are none. Nothing was trained; server and client must run the same release."
        )
    digest = tensors_digest(found)
    known = vault.note(kind, digest)
    if known != digest:
        raise KeepsakeProblem(
            f"What earlier steps kept for {kind} was {known[:12]} and is now {digest[:12]}: within step "
            f"'{order.step.name}' it never changes. Nothing was trained; ask the coordinator why it does."
        )
    return found
