"""The cohort's file: under which key patients are hashed, how they are split, who has which place, who is erased.

It is append-only and hash-chained like every ledger here, stands in the vault, and names nobody: a patient is a keyed
hash of the ID, and the key never leaves. Nothing in it is ever changed, so nobody in it ever changes sides: new
patients add lines, and so do an erasure and the release of the split (`python -m client split --release`).
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from client.data.case import Case
from client.data.splits import Deal, Place
from client.vault.ending import BEGUN, append_noted, check_end, end_of, known_end
from client.vault.lock import alone
from client.vault.standing import VaultError
from common.errors import FedgraftError
from common.protocol.messages import STAGE
from common.store.ledger import Ledger

FILE = "cohort.jsonl"
FIRST_LINE_TRIES, FIRST_LINE_S = 50, 0.01
TOMBSTONES = "erased.json"  # where an earlier release kept the erased patients, by name
FIXED, PLACED, ERASED, CLEARED, RELEASED = "split_fixed", "placed", "erased", "cleared", "split_released"
MEASURED = "measured"  # statistics were told before any order: the key is fixed, and nobody has a place


@dataclass(frozen=True)
class Cohort:
    """What the file says. A vault without one has a key for the moment, no split, and nobody in a place."""

    key: bytes
    deal: Deal | None = None
    fixed_at: str = ""  # UTC
    fixed_by: str = ""
    places: Mapping[str, Place] = field(default_factory=dict)  # by hashed ID
    erased: frozenset[str] = frozenset()  # hashed IDs

    def hashed(self, case: Case) -> str:
        """The patient's hashed ID: the same for as long as the vault lives, meaningless without its key."""
        return hashed_id(self.key, case.patient)

    def is_erased(self, patient: str) -> bool:
        """Whether a patient of this ID must never be seen again."""
        return hashed_id(self.key, patient) in self.erased


def new_key() -> bytes:
    """A key for a vault that has none."""
    return secrets.token_bytes(32)


def hashed_id(key: bytes, patient: str) -> str:
    """HMAC-SHA256 of an ID, 128 bits of it in hexadecimal."""
    return hmac.digest(key, patient.encode(), "sha256").hex()[:32]


def read_cohort(vault: Path) -> Cohort:
    """The cohort's file. Raises VaultError where it is damaged, or lost while the record of what left says that
    patients were split: it must never be made anew unasked."""
    path = vault / FILE
    end = _end(path)
    if not path.exists():
        _check_not_lost(vault, begun=bool(end))
        return _with_tombstones(Cohort(new_key()), vault)
    _await_first_line(path)
    stat = path.stat()
    return _with_tombstones(_read(path, stat.st_size, stat.st_mtime_ns, end), vault)


def append(vault: Path, kind: str, event: Mapping[str, Any], *, key: bytes) -> None:
    """Add a line; hold `client.vault.lock.alone` of the file meanwhile. A new file begins with the key."""
    append_noted(vault / FILE, kind, event, first={"key": key.hex()})


def begin(vault: Path) -> None:
    """Begin the file of a vault that has none, so that what is told from now on is told by one key."""
    with alone(vault / FILE):
        if not (vault / FILE).exists():
            append(vault, MEASURED, {}, key=read_cohort(vault).key)


def fix(vault: Path, deal: Deal, *, by: str, key: bytes) -> None:
    """Fix the split for good."""
    append(vault, FIXED, {**asdict(deal), "by": by}, key=key)


def place(vault: Path, places: Mapping[str, Place], *, key: bytes) -> None:
    """Give patients, by hashed ID, their places."""
    lines = {hashed: [place.fold, list(place.validates)] for hashed, place in sorted(places.items())}
    append(vault, PLACED, {"patients": lines}, key=key)


@lru_cache(maxsize=64)
def _read(path: Path, size: int, changed: int, end: tuple[tuple[str, Any], ...]) -> Cohort:
    """Size and time of the last change decide whether it is read again."""
    try:
        events = Ledger(path).events()
        check_end(path, events, dict(end))
        return _replayed(events)
    except (FedgraftError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _await_first_line(path: Path) -> None:
    """Another process may just have made the file, and have written nothing yet; one that stays empty is damaged."""
    for _ in range(FIRST_LINE_TRIES):
        if path.stat().st_size > 0:
            return
        time.sleep(FIRST_LINE_S)


def _end(path: Path) -> tuple[tuple[str, Any], ...]:
    try:
        return tuple(sorted(known_end(path).items()))
    except (FedgraftError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> VaultError:
    return VaultError(
        f"{path}, which says who trains, who tests and who is erased, cannot be read ({error}); restore it from a "
        "backup of the vault. Made anew, patients who have trained could test, and erased ones would train: where "
        "there is no backup, `python -m client split --release` begins a new one and says what to do."
    )


def _replayed(events: Iterable[Mapping[str, Any]]) -> Cohort:
    key, erased = b"", set[str]()
    fixed: dict[str, Any] = {}
    places: dict[str, Place] = {}
    for event in events:
        if event["kind"] == BEGUN:
            key = bytes.fromhex(event["key"])
        elif event["kind"] == FIXED:
            fixed, places = dict(event), {}
        elif event["kind"] == PLACED:
            places |= {hashed: Place(int(f), tuple(v)) for hashed, (f, v) in event["patients"].items()}
        elif event["kind"] == ERASED:
            erased.add(str(event["patient"]))
        elif event["kind"] == RELEASED:
            fixed, places = {}, {}
    if len(key) < 16:
        raise ValueError("it holds no key")
    deal = _deal(fixed) if fixed else None
    return Cohort(key, deal, fixed.get("time", ""), fixed.get("by", ""), places, frozenset(erased))


def _deal(fixed: Mapping[str, Any]) -> Deal:
    """Of an earlier release, which had validation cases at every center, too."""
    everywhere = bool(fixed.get("everywhere", True))
    return Deal(int(fixed["seed"]), int(fixed["folds"]), float(fixed["validation"]), everywhere)


def _with_tombstones(cohort: Cohort, vault: Path) -> Cohort:
    """The cohort with whom an earlier release erased, too."""
    path = vault / TOMBSTONES
    if not path.exists():
        return cohort
    try:
        names = [str(entry["patient"]) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VaultError(
            f"The vault's list of erased patients, {path}, cannot be read ({type(error).__name__}); restore it from a "
            "backup: without it erased patients would train again."
        ) from error
    erased = cohort.erased | {hashed_id(cohort.key, name) for name in names}
    return Cohort(cohort.key, cohort.deal, cohort.fixed_at, cohort.fixed_by, cohort.places, erased)


def _check_not_lost(vault: Path, *, begun: bool) -> None:
    """What has left tells that patients had been split: then the file is lost, not absent. A stage of the frozen model
    is taken in without looking at a patient, so an answer to one tells nothing.

    Args:
        begun: whether the note of where it ended says that there was one.
    """
    from client.vault.outbox import FILE as SENT
    from client.vault.outbox import REPLY

    path = vault / SENT
    try:
        told = Ledger(path).events(REPLY) if path.exists() else []
        answered = any(event.get("code") == "ok" and event.get("action") != STAGE for event in told)
    except (FedgraftError, OSError):
        answered = False  # whoever records the next reply says so
    if answered or begun:
        says = f"{SENT} beside it says that this center has answered" if answered else f"{end_of(vault / FILE)} is"
        raise VaultError(
            f"{vault / FILE}, which says who trains, who tests and who is erased, is not there, but {says}; restore it "
            "from a backup of the vault. If the vault is of a release that had no such file, or it cannot be restored, "
            "begin one with `python -m client split --release`."
        )
