"""Room: how much of the vault the states of runs take, so that a coordinator who begins runs without end fills no disk.

What keeps a hospital safe (split, erased patients, records, the account) is small and has no limit. States of steps and
finished stages are large. Beyond the policy's limit nothing new is begun; what was begun goes on.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import PolicyRefusal

ROOM = "declined.room"
STATES = ("steps", "bases")  # folders of a center's vault


def check_room(vault: Path, place: Path, *, most_gb: float | None) -> None:
    """Raise PolicyRefusal where a folder would be new to a vault whose states are beyond the limit already.

    Args:
        vault: the center's folder in its vault.
        place: the step's shelf, or the stage's folder.
        most_gb: of `client.policy.Policy`; None: no limit.
    """
    if most_gb is None or place.exists():
        return
    held = taken(vault)
    if held >= most_gb * 1e9:
        raise PolicyRefusal(
            ROOM,
            f"States of earlier steps take {held / 1e9:.2f} GB of {vault}; policy.maximum_vault_gb is {most_gb:g}, so "
            "no other step is begun. Remove those of runs that are over (retention.step_days and `python -m client "
            "tidy --delete`; finished stages in bases/ stay), or raise it.",
        )


def taken(vault: Path) -> int:
    """Bytes of all states in a center's vault."""
    files = (path for folder in STATES for path in (vault / folder).rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)
