"""The server's end of methods that are taught by the model which the step began with: it travels, nothing is summed."""

from __future__ import annotations

from common.protocol.keepsakes import TEACHER
from common.protocol.messages import State
from server.methods.base import Begun, End


class TeacherEnd(End):
    """Two methods of one step share the teacher: it has one name."""

    def brings(self, begun: Begun, kept: State) -> State:
        """The step's start, without what a seed makes."""
        return {TEACHER + name: tensor for name, tensor in begun.start.items() if name not in begun.seeded}
