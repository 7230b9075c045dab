"""What the hospital's privacy account says, where its policy or a private step ever began one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from client.center.config import CenterConfig
from client.doctor.finding import NOTE, WARNING, Finding, from_sentence
from client.policy.policy import ceiling_of
from client.privacy.spending import check_clock, read_account
from client.vault.standing import VaultError
from common.privacy.accounting import epsilon

NEARLY = 0.9  # of the ceiling


def check_account(config: CenterConfig, vault: Path) -> Iterator[Finding]:
    """An account that cannot be believed, one that is nearly spent, and what left beside it."""
    try:
        account = read_account(vault)
        check_clock(vault, account, datetime.now(UTC))
    except VaultError as error:
        yield from_sentence(str(error), "privacy")
        return
    ceiling = ceiling_of(config.policy)
    if account.lost:
        yield Finding(WARNING, "privacy", "An earlier privacy account was lost: what was spent before is not known.")
    if not account.is_private:
        yield Finding(
            WARNING,
            "privacy",
            "The privacy account holds noise from a known seed, which protects nobody.",
            "Patients of this vault have no protection by noise; use seeded noise in tests only.",
        )
    if ceiling is None:
        return
    spent = epsilon(account.releases, ceiling.delta)
    yield Finding(
        WARNING if spent >= NEARLY * ceiling.epsilon else NOTE,
        "privacy",
        f"Epsilon {spent:.2f} of {ceiling.epsilon:g} is spent at delta {ceiling.delta:g}, and {len(account.unnoised)} "
        "replies left without noise.",
        "Every line: python -m client budget.",
    )
