"""Memory: which training cases a center goes on showing to a step, as keyed hashes of patients and contents.

Never copies, never names: where a file is gone or a patient erased, nothing of it is left to train on. The split
decides who can be in it at all, so no test or validation case ever is.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

from client.data.case import Case
from client.vault.cohort import hashed_id, read_cohort
from client.vault.standing import Standing, VaultError
from client.vault.vault import Vault
from common.store.sealed import DamagedFile, read_sealed, write_sealed

FILE = "memory.json"
FILES = "memory*.json"
REMEDY = "restore the vault from a backup, or delete this file and accept the loss with `python -m client afresh`."


class MemoryProblem(VaultError):
    """What a method must remember is gone: the code travels, the sentence stays on site."""

    code = "vault.memory"


def remember(vault: Vault, cases: Sequence[Case], *, path: Path | None = None) -> None:
    """Write who is in the step's memory, in the place of whoever was.

    Args:
        path: of a memory that several steps share (`shared`).
    """
    key = read_cohort(vault.root).key
    rows = [{"patient": hashed_id(key, case.patient), "content": _content(key, case)} for case in cases]
    write_sealed(path or vault.path / FILE, rows)


def shared(vault: Vault, name: str) -> Path:
    """Where the steps of a run that keep a memory of this name find it."""
    return vault.shelf(name) / f"memory-{name}.json"


def remembered(vault: Vault, cases: Iterable[Case], *, path: Path | None = None) -> list[Case] | None:
    """Those of the cases that the step's memory holds and whose files are as they were; None before there is one.

    Raises:
        MemoryProblem: the memory should be there and is not, is damaged, or holds nobody whose files are as they were.
    """
    path = path or vault.path / FILE
    if not path.exists():
        _check_not_lost(vault, path)
        return None
    try:
        rows = {str(row["patient"]): str(row["content"]) for row in read_sealed(path, remedy=REMEDY)}
    except DamagedFile as error:
        raise MemoryProblem(str(error)) from error
    key = read_cohort(vault.root).key
    found = [case for case in cases if hashed_id(key, case.patient) in rows]
    same = [case for case in found if rows[hashed_id(key, case.patient)] == _content(key, case)]
    if rows and not same:
        raise MemoryProblem(
            f"None of the {len(rows)} cases in the memory of step '{vault.order.step.name}' is as it was: their files "
            f"were removed or changed. Put them back, or delete {path} and accept the loss with "
            "`python -m client afresh`."
        )
    return same


def forget_patient(root: Path, hashed: str) -> int:
    """Take a patient out of every memory of a center's vault; how many held the patient."""
    held = 0
    for path in sorted((root / "steps").glob(f"*/{FILES}")):
        rows = read_sealed(path, remedy=REMEDY)
        left = [row for row in rows if row["patient"] != hashed]
        if len(left) < len(rows):
            held += 1
            write_sealed(path, left)
    return held


def _check_not_lost(vault: Vault, path: Path) -> None:
    since, standing = vault.order.since, Standing(vault.root, vault.order)
    if since == 0 or since <= standing.given_up:
        return
    standing.note_loss(since)
    raise MemoryProblem(
        f"{path} is missing: the coordinator has used this center's update of round {since} of step "
        f"'{vault.order.step.name}', which was made of that memory. Restore the vault from a backup, or accept the "
        "loss with `python -m client afresh`; another memory is then drawn."
    )


def _content(key: bytes, case: Case) -> str:
    """A keyed hash of a case's files."""
    digest = hmac.new(key, digestmod="sha256")
    for role, path in sorted({**case.images, **({"label": case.label} if case.label else {})}.items()):
        with path.open("rb") as file:
            digest.update(f"{role}|{hashlib.file_digest(file, 'sha256').hexdigest()}|".encode())
    return digest.hexdigest()[:32]
