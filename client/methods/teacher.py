"""The teacher of a step: the federation's model as the step began, frozen, in evaluation mode, the same in each round.

It comes with each order, because a center may join late or lose its vault; the vault remembers its hash, so that no
coordinator can teach another thing in each round. It is never a center's own drifted model.
"""

from __future__ import annotations

from client.methods.base import Method
from client.training.job import Job
from client.vault.vault import Vault
from common.backbones.base import tensors_digest
from common.errors import FedgraftError
from common.model.adapted import AdaptedModel
from common.protocol.keepsakes import TEACHER
from common.protocol.messages import State

SHELF = "teacher"


class TeacherProblem(FedgraftError):
    """No teacher, or another one than before: the code travels, the sentence stays on site."""

    code = "teacher"


def teacher_of(job: Job, vault: Vault) -> AdaptedModel:
    """The order's teacher as a model of its own.

    Raises:
        TeacherProblem: the order brings none, or one that differs from that of an earlier round.
    """
    order = job.order
    brought = {n.removeprefix(TEACHER): t for n, t in order.extra.items() if n.startswith(TEACHER)}
    if not brought or job.another is None:
        raise TeacherProblem(
            f"Step '{order.step.name}' lists a method that is taught by the model which the step began with, and the "
            "order brings no such model; server and client must run the same release."
        )
    state: State = {**order.state, **brought}
    digest = tensors_digest(brought)
    known = vault.note(SHELF, digest)
    if known != digest:
        raise TeacherProblem(
            f"The teacher of step '{order.step.name}' was {known[:12]} and is now {digest[:12]}: within a step it "
            "never changes. Nothing was trained; ask the coordinator why it does."
        )
    model = job.another()
    model.load(state)
    return model.eval().requires_grad_(False)


class Taught(Method):
    """What methods share that compare every batch with the teacher.

    Args:
        strength: weight of what they add to the loss.
    """

    def __init__(self, strength: float, vault: Vault):
        self.strength = strength
        self._vault = vault
        self._teacher: AdaptedModel | None = None

    def begin(self, job: Job) -> None:
        """Load the teacher."""
        self._teacher = teacher_of(job, self._vault)

    @property
    def teacher(self) -> AdaptedModel:
        """From `begin` on."""
        assert self._teacher is not None
        return self._teacher
