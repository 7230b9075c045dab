"""What a message's process found it had to load, told to the executor so that the next one finds it loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Wanted:
    """A step's frozen model and model, and its prepared cases. It stays on this machine, between its own processes."""

    center: str  # path of center.yaml
    order: str  # what of an order decides its model and its cases, as JSON
    sets: tuple[tuple[str, ...], ...]  # patients of every prepared set, in its order
    files: tuple[str, ...]  # the files and folders that it all is made from
    without: tuple[str, ...]  # folders among them that this hospital's own processes write to
    seconds: float  # the policy's: loading may take as long as a message
    memory: int  # bytes: and it may take as much

    @property
    def key(self) -> tuple[str, str]:
        """What it belongs to: another step, or another center's file, has another one."""
        return self.center, self.order

    def covers(self, other: Wanted) -> bool:
        """Whether the other one has nothing that this lacks."""
        return self.key == other.key and set(other.sets) <= set(self.sets)

    def with_sets_of(self, other: Wanted) -> Wanted:
        """This one, with what the other has beside it."""
        return replace(self, sets=self.sets + tuple(each for each in other.sets if each not in self.sets))

    def to_bytes(self) -> bytes:
        """As it is sent from one process to another."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, sent: bytes) -> Wanted:
        """As it was sent. Raises ValueError, KeyError or TypeError where it is none."""
        found = json.loads(sent)
        return cls(
            center=str(found["center"]),
            order=str(found["order"]),
            sets=tuple(tuple(map(str, patients)) for patients in found["sets"]),
            files=tuple(map(str, found["files"])),
            without=tuple(map(str, found["without"])),
            seconds=float(found["seconds"]),
            memory=int(found["memory"]),
        )
