"""Show this center's own split, or give it up: who trains, validates and tests here, and since when that is fixed.

The split is fixed once, by ``split:`` in center.yaml or by the first order that the center accepts; nobody changes
sides afterwards, and an order that names another split is refused. --release gives it up, so that the next order fixes
one anew: patients who have trained may test then, and no adapter learned before may be judged here again. Erased
patients stay erased. A damaged or lost file is replaced by a new one, which knows no erased patient: erase them again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from client.commands.files import add_center, center_of, vault_of

EXAMPLE = "python -m client split --center center.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--release", action="store_true", help="give the split up; the next order fixes one anew")


def run(arguments: argparse.Namespace) -> int:
    """Print the split, or release it and say what follows."""
    from client.policy import test_folds
    from client.vault.cohort import read_cohort
    from client.vault.folds import said

    config = center_of(arguments)
    if arguments.release:
        print(release(vault_of(config)))
    print(said(read_cohort(vault_of(config)), config.split, test_folds(config.policy)))
    return 0


def release(vault: Path) -> str:
    """Give up a vault's split; what follows from it, in sentences."""
    from client.vault.cohort import FILE, RELEASED, append, new_key, read_cohort
    from client.vault.lock import alone
    from client.vault.standing import VaultError

    with alone(vault / FILE):
        try:
            key, lost = read_cohort(vault).key, ""
        except VaultError:
            key, lost = new_key(), _set_aside(vault / FILE)
        append(vault, RELEASED, {}, key=key)
    return f"{lost}The split is given up: adapters that were learned before must not be judged at this center again."


def _set_aside(path: Path) -> str:
    """Keep a damaged file under another name; what that means."""
    from client.vault.ending import set_aside

    aside = set_aside(path)
    kept = f", and the damaged one is kept as {aside}" if aside else ""
    return f"A new {path.name} is begun{kept}: it knows no erased patient, so erase them again before the next round. "
