"""What a secure sum leaves in the vault: the open one of each run, and of every opened one over whom it was.

A process may live for one message, so that a sum's secrets are on this center's disk between its phases. They go when
its shares are given, or when the next sum of the run begins. Whose numbers a sum is of is remembered for good: the
same question is summed with the same centers again or not at all, since two sums that differ by one center say what
that center's numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from client.vault.lock import alone
from common.errors import PolicyRefusal
from common.files import write_bytes
from common.privacy.masking.center import MASKING
from common.store.sealed import read_sealed, write_sealed

FOLDER, ANSWERED = "masking", "answered.json"
REMEDY = "restore the vault from a backup."


class OpenSum:
    """The file of one run's open secure sum."""

    def __init__(self, vault: Path, run: str):
        self.path = vault / FOLDER / f"open-{run or 'none'}.json"

    def read(self) -> str:
        """What the last phase left; empty where no sum is open."""
        return self.path.read_text() if self.path.exists() else ""

    def write(self, text: str) -> None:
        """What the next phase needs, for nobody else to read."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes(self.path, text.encode())
        self.path.chmod(0o600)

    def close(self) -> None:
        """Forget the secrets."""
        self.path.unlink(missing_ok=True)


def check_repeated(vault: Path, question: str, survivors: Sequence[str]) -> None:
    """Raise PolicyRefusal where this question was answered with other centers before."""
    before = _answered(vault).get(question)
    if before is not None and before != sorted(survivors):
        differ = len({*before} ^ {*survivors})
        raise PolicyRefusal(
            MASKING,
            f"This question was summed over {len(before)} centers before, and now {differ} are others: the "
            "difference of both sums would be theirs.",
        )


def note_answered(vault: Path, question: str, survivors: Sequence[str]) -> None:
    """Remember over whom a question is summed, on disk before this center's shares leave. Raises PolicyRefusal."""
    path = vault / FOLDER / ANSWERED
    with alone(path):
        check_repeated(vault, question, survivors)
        write_sealed(path, _answered(vault) | {question: sorted(survivors)})


def _answered(vault: Path) -> dict[str, list[str]]:
    path = vault / FOLDER / ANSWERED
    found: dict[str, list[str]] = read_sealed(path, remedy=REMEDY) if path.exists() else {}
    return found
