"""What a cohort has spent of its patients' privacy: one account in the vault, written before any noise is drawn.

A patient is protected by the noise of all that was ever drawn over this cohort, whichever step, task, run or restart
drew it: any of it may have been drawn from the same patient, so the account is composed as a whole. What has the digest
of an earlier entry draws that entry's noise again: it tells nothing new and is free. Anything else is charged, and
refused where the account would pass the hospital's ceiling.

The account is append-only, hash-chained and on disk before `charge` returns, so a process that dies anywhere has paid
for all that it drew, at worst for noise that it never drew. It also lists what left without noise
(`client.privacy.unnoised`): no epsilon covers that. Nothing in it ever names a patient, and an erasure changes nothing
in it. What it cannot show is a whole vault that was put back to an earlier state, note of the end included.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from client.policy.policy import Ceiling
from client.vault.ending import BEGUN, check_end, end_of, note_end, version_of
from client.vault.lock import alone
from client.vault.outbox import FILE as SENT
from client.vault.standing import VaultError
from common.errors import FedgraftError, PolicyRefusal
from common.privacy.accounting import Release, epsilon
from common.store.ledger import Ledger

FILE = "privacy.jsonl"
CHARGED, UNNOISED = "charged", "unnoised"
BUDGET, SEEDED, QUESTIONS = "declined.budget", "declined.privacy", "declined.questions"
CLOCK_SLACK = timedelta(minutes=5)  # a clock that is set right by a time server may go back by less
QUICKER_FIRST = ("rdp", "prv")


class AccountProblem(VaultError):
    """The account cannot be believed: nothing is drawn before somebody at the hospital has looked."""

    code = "vault.privacy"


@dataclass(frozen=True)
class Entry:
    """What is about to be drawn.

    Args:
        run, step, round: where, for whoever reads the account.
        digest: of all that keys the noise (question, patients, the vault's secret): equal means the same noise.
        releases: what is drawn, for the accountant.
        seeded: the noise comes from a known seed (a test): it protects nobody, and the account says so for good.
    """

    run: str
    step: str
    round: int
    digest: str
    releases: tuple[Release, ...]
    seeded: bool = False

    @property
    def kinds(self) -> frozenset[str]:
        """What the noise is on."""
        return frozenset(release.kind for release in self.releases)


@dataclass(frozen=True)
class Unnoised:
    """One reply that left without noise: what it told, of which step, round and subset."""

    what: str
    run: str
    step: str
    round: int
    subset: str


@dataclass(frozen=True)
class Account:
    """What the file says; an empty one where there is none.

    Args:
        replies_before: how many replies had left before the account began, none of them with noise.
        lost: an earlier account was lost, so what was spent before is not known.
        last: when the last line was written.
    """

    charges: tuple[Entry, ...] = ()
    unnoised: tuple[Unnoised, ...] = ()
    replies_before: int = 0
    lost: bool = False
    last: datetime | None = None

    @property
    def releases(self) -> tuple[Release, ...]:
        """Everything that was charged."""
        return tuple(release for entry in self.charges for release in entry.releases)

    @property
    def is_private(self) -> bool:
        """Whether its epsilon says something: no noise came from a known seed."""
        return not any(entry.seeded for entry in self.charges)

    def holds(self, entry: Entry) -> bool:
        """Whether this very noise was paid for already."""
        return any((one.digest, one.releases) == (entry.digest, entry.releases) for one in self.charges)


def charge(
    vault: Path, entry: Entry, ceiling: Ceiling | None = None, *, most: int | None = None, now: datetime | None = None
) -> bool:
    """Put on the account what is about to be drawn; whether it is new. Draw noise once this has returned, never before.

    Args:
        vault: the center's folder in its vault, one per cohort.
        ceiling: the hospital's; None charges without one.
        most: entries of this kind that a step of a run may have, where its noise is for so many.
        now: UTC; the clock's where absent.

    Raises:
        PolicyRefusal: it would pass the ceiling (``declined.budget``), is one too many (``declined.questions``), or is
            seeded where there is a ceiling.
        AccountProblem: the account is damaged, cut or gone, or the clock was set back.
    """
    if entry.seeded and ceiling is not None:
        raise PolicyRefusal(
            SEEDED, f"Step '{entry.step}' draws noise from a known seed, which protects nobody; policy.privacy asks for"
            " noise that does.",
        )  # fmt: skip
    with alone(vault / FILE):
        account = read_account(vault)
        check_clock(vault, account, now or datetime.now(UTC))
        if account.holds(entry):
            return False
        _check_number(account, entry, most)
        check_fits(account, entry.releases, ceiling, step=entry.step)
        _append(vault, CHARGED, asdict(entry))
    return True


def _check_number(account: Account, entry: Entry, most: int | None) -> None:
    alike = [one for one in account.charges if (one.run, one.step) == (entry.run, entry.step)]
    before = sum(bool(one.kinds & entry.kinds) for one in alike)
    if most is not None and before >= most:
        raise PolicyRefusal(
            QUESTIONS,
            f"Step '{entry.step}' has noise for {most} answers of its kind ({', '.join(sorted(entry.kinds))}), and "
            f"{before} others were given in this run; ask for it again in a new run, which is charged anew.",
        )


def check_fits(account: Account, planned: Sequence[Release], ceiling: Ceiling | None, *, step: str) -> None:
    """Raise PolicyRefusal where the account and what is planned would pass the ceiling together."""
    if ceiling is None:
        return
    counted, added = (
        tuple(release for release in releases if ceiling.of in ("", release.kind))
        for releases in (account.releases, planned)
    )
    together = (*counted, *added)
    if is_within(together, ceiling):
        return
    before, after = (epsilon(releases, ceiling.delta) for releases in (counted, together))
    raise PolicyRefusal(
        BUDGET,
        f"Step '{step}' would bring what this cohort has spent from epsilon {before:.2f} to {after:.2f} at delta "
        f"{ceiling.delta:g}; it may spend {ceiling.epsilon:g} over every step, run and restart (policy.privacy).",
    )


def is_within(releases: Sequence[Release], ceiling: Ceiling) -> bool:
    """Whether releases stay within a ceiling by one of the accountants; each bounds epsilon from above."""
    return any(epsilon(releases, ceiling.delta, accountant) <= ceiling.epsilon for accountant in QUICKER_FIRST)


def read_account(vault: Path) -> Account:
    """The account; an empty one where none was begun. Raises AccountProblem where it is damaged, cut or gone."""
    path = vault / FILE
    try:
        version = version_of(path)
    except (FedgraftError, AttributeError, FileNotFoundError) as error:
        raise _unreadable(path, error) from error
    return Account() if version is None else _read(*version)


def check_clock(vault: Path, account: Account, now: datetime) -> None:
    """Raise AccountProblem where the clock was set back behind the account's last line."""
    if account.last is not None and now < account.last - CLOCK_SLACK:
        raise AccountProblem(
            f"The clock says {now:%Y-%m-%d %H:%M} UTC, and the last line of {vault / FILE} was written "
            f"{account.last:%Y-%m-%d %H:%M}: the clock was set back, or the vault is of another machine. Set the clock."
        )


def begin(vault: Path, *, lost: bool = False) -> None:
    """The account's first line; hold `client.vault.lock.alone` of the file meanwhile."""
    path = vault / FILE
    sent = vault / SENT
    before = sent.read_bytes().count(b"\n") if sent.exists() else 0
    ledger = Ledger(path)
    ledger.append(BEGUN, {"replies_before": before, "lost": lost})
    path.chmod(0o600)
    _settle(vault)
    note_end(ledger)


@lru_cache(maxsize=64)
def _read(path: Path, size: int, changed: int, end: tuple[tuple[str, Any], ...]) -> Account:
    """Size and time of the last change decide whether it is read again."""
    try:
        events = Ledger(path).events()
        check_end(path, events, dict(end))
        if not end and len(events) > 1:
            raise FileNotFoundError(f"{end_of(path).name}, which says where it ended, is gone")
        return _replayed(events)
    except (FedgraftError, OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def _replayed(events: Sequence[Mapping[str, Any]]) -> Account:
    if not events:
        return Account()
    if events[0]["kind"] != BEGUN:
        raise ValueError("its first line does not begin an account")
    first = events[0]
    charges = tuple(_entry(event) for event in events if event["kind"] == CHARGED)
    unnoised = tuple(_unnoised(event) for event in events if event["kind"] == UNNOISED)
    last = max(datetime.fromisoformat(event["time"]) for event in events)
    return Account(charges, unnoised, int(first["replies_before"]), bool(first["lost"]), last)


def _entry(event: Mapping[str, Any]) -> Entry:
    releases = tuple(Release(**release) for release in event["releases"])
    return Entry(event["run"], event["step"], int(event["round"]), event["digest"], releases, bool(event["seeded"]))


def _unnoised(event: Mapping[str, Any]) -> Unnoised:
    return Unnoised(event["what"], event["run"], event["step"], int(event["round"]), event["subset"])


def _append(vault: Path, kind: str, event: Mapping[str, Any]) -> None:
    path = vault / FILE
    if not path.exists() or path.stat().st_size == 0:
        begin(vault)
    ledger = Ledger(path)
    ledger.append(kind, dict(event))
    note_end(ledger)


def _settle(folder: Path) -> None:
    """The folder's own entry of a new file is on disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unreadable(path: Path, error: Exception) -> AccountProblem:
    return AccountProblem(
        f"{path}, which says what this cohort has spent of its privacy, cannot be read ({error}). Restore it from a "
        "backup of the vault; where there is none, what was spent is not known, and `python -m client budget --afresh`"
        " begins a new account that says so."
    )
