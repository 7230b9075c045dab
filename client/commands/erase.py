"""Remove a patient from this center's caches, buffers and every future split.

Prepared volumes are all removed, because they carry no names: they are made again when they are next needed. The
patient's own files are not touched: remove them yourself once this command has said what it did. What the patient
taught an adapter that has already left cannot be called back; the record of what left (`python -m client audit`) says
which steps those were. Nothing here names the patient any more: the vault keeps a keyed hash of the ID, so that a case
that turns up again is not seen, and its place in the split.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.codes import forget_code
from client.commands.files import add_center, center_of

if TYPE_CHECKING:
    from client.center.center import Center

EXAMPLE = "python -m client erase --patient CHUM-017"


@dataclass(frozen=True)
class Erased:
    """What was done; counts only."""

    cached: int
    mapped: int
    already: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--patient", required=True, metavar="CODE", help="the patient's code, as in CHUM-017")


def run(arguments: argparse.Namespace) -> int:
    """Erase, and say what was done and what is left to do."""
    from client.center.center import Center

    done = erase(Center(center_of(arguments)), arguments.patient)
    print(
        "The patient was already erased; the caches were cleared again." if done.already else "The patient is erased:"
    )
    print(f"  {done.cached} files removed from the cache; they are made again for the other patients")
    print(f"  {done.mapped} entries removed from the vault's table of codes")
    print("  no split of this center will hold the patient; every other patient stays on the same side")
    print("Now remove the patient's image files and table rows, and restart the node (python -m client start).")
    return 0


def erase(center: Center, patient: str) -> Erased:
    """Erase one patient of an opened center.

    Raises:
        DataError: the center has no such patient.
    """
    from client.vault.cohort import CLEARED, ERASED, FILE, append, hashed_id, read_cohort
    from client.vault.lock import alone
    from client.vault.memory import forget_patient
    from common.errors import DataError

    already = read_cohort(center.vault).is_erased(patient)
    if not already and all(case.patient != patient for case in center.cases):
        raise DataError(
            f"Center {center.code} has no patient with the code given (of {len(center.cases)}); codes look like "
            f"{center.code}-001 and stand in the file names."
        )
    with alone(center.vault / FILE):
        key = read_cohort(center.vault).key
        if not already:
            append(center.vault, ERASED, {"patient": hashed_id(key, patient)}, key=key)
        forget_patient(center.vault, hashed_id(key, patient))
        done = Erased(clear_cache(Path(center.config.cache)), forget_code(center.vault, patient), already)
        append(center.vault, CLEARED, {"cached": done.cached, "mapped": done.mapped}, key=key)
    return done


def clear_cache(folder: Path) -> int:
    """Remove what `client.data.images.cache` wrote below a folder, and nothing else; the number of files."""
    found = [*folder.glob("[0-9a-f][0-9a-f]/*.safetensors"), *folder.glob("digests/*.txt"), *folder.rglob(".partial-*")]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
