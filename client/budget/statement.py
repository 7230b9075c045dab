"""Statement: what a cohort has spent of its patients' privacy, step by step, and what a planned curriculum would add.

Every epsilon is of the tighter accountant (privacy random variables) at one delta, and `after` is of everything up to
there together: it is less than the sum of the single ones. What left without noise has no epsilon and stands beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from client.policy.policy import Ceiling
from client.privacy.noised.calibration import plan_at, score_plan_at
from client.privacy.spending import Account, is_within
from common.config.privacy import scores_are_noised
from common.config.step import Step
from common.privacy.accounting import Release, epsilon
from common.privacy.plan import SCORES

SCORED = ": scores"  # behind the name of a step, of its answers with scores


@dataclass(frozen=True)
class Line:
    """One step of one run.

    Args:
        rounds: how many were charged, or are planned; of scores, how many answers.
        draws: of patients, over all of them.
        noise: the least of its releases, in units of the bound of one patient's part; 0 of none.
        alone: epsilon of this line.
        after: epsilon of the account with this line and all before it.
        refused_from: the round that would not be begun any more; 0: none.
    """

    run: str
    step: str
    rounds: int
    draws: int
    noise: float
    alone: float
    after: float
    refused_from: int = 0


@dataclass(frozen=True)
class Statement:
    """What the account says at one delta.

    Args:
        left: what the ceiling leaves; None without one. Epsilons do not simply add: a plan may cost less than it seems.
        unnoised: how many replies left without noise since the account began, by what they told.
    """

    delta: float
    ceiling: float | None
    spent: float
    spent_rdp: float
    left: float | None
    lines: tuple[Line, ...]
    planned: tuple[Line, ...]
    unnoised: Mapping[str, int]
    replies_before: int
    lost: bool
    is_private: bool


def statement_of(
    account: Account, *, ceiling: Ceiling | None, delta: float, plan: Mapping[str, Sequence[Release]] | None = None
) -> Statement:
    """What an account says.

    Args:
        delta: at which epsilon is told.
        plan: step -> what each of its rounds would release, in the order of the curriculum.
    """
    releases = account.releases
    spent = epsilon(releases, delta)
    return Statement(
        delta=delta,
        ceiling=ceiling.epsilon if ceiling else None,
        spent=spent,
        spent_rdp=epsilon(releases, delta, "rdp"),
        left=max(ceiling.epsilon - spent, 0.0) if ceiling else None,
        lines=tuple(_charged(account, delta)),
        planned=tuple(_planned(releases, plan or {}, ceiling, delta)),
        unnoised=dict(sorted(Counter(one.what for one in account.unnoised).items())),
        replies_before=account.replies_before,
        lost=account.lost,
        is_private=account.is_private,
    )


def plan_of_steps(steps: Mapping[str, Step], center: str, *, vault: Path) -> dict[str, list[Release]]:
    """What each private step of a curriculum would release at a center, round by round, and its answers with scores.

    Args:
        vault: where noise that was found before stands; nothing in it is changed.

    Raises:
        ConfigError: a step's noise cannot be found.
    """
    found: dict[str, list[Release]] = {}
    for name, step in steps.items():
        if step.privacy is None:
            continue
        found[name] = [plan_at(vault, step, center, keep=False).release] * step.rounds
        if scores_are_noised(step.privacy):
            plan = score_plan_at(vault, step, center, keep=False)
            found[name + SCORED] = [plan.release] * plan.answers
    return found


def _charged(account: Account, delta: float) -> Iterator[Line]:
    by_step: dict[tuple[str, str], list[Release]] = {}
    rounds = Counter[tuple[str, str]]()
    for entry in account.charges:
        name = entry.step + SCORED if SCORES in entry.kinds else entry.step
        by_step.setdefault((entry.run, name), []).extend(entry.releases)
        rounds[entry.run, name] += 1
    until = accumulate(by_step.values(), lambda before, own: [*before, *own])
    for ((run, step), own), together in zip(by_step.items(), until, strict=True):
        yield _line(run, step, rounds[run, step], own, together, delta)


def _planned(
    spent: Iterable[Release], plan: Mapping[str, Sequence[Release]], ceiling: Ceiling | None, delta: float
) -> Iterator[Line]:
    together = [*spent]
    for step, own in plan.items():
        fits = _rounds_that_fit(together, own, ceiling)
        yield _line("planned", step, len(own), own, [*together, *own], delta, 0 if fits == len(own) else fits + 1)
        together += own


def _rounds_that_fit(before: Sequence[Release], own: Sequence[Release], ceiling: Ceiling | None) -> int:
    """How many of a step's rounds stay within the ceiling; more rounds never cost less."""
    if ceiling is None:
        return len(own)
    low, high = 0, len(own)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_within([*before, *own[:middle]], ceiling) else (low, middle - 1)
    return low


def _line(
    run: str,
    step: str,
    rounds: int,
    own: Sequence[Release],
    together: Sequence[Release],
    delta: float,
    refused_from: int = 0,
) -> Line:
    draws, noise = sum(release.draws for release in own), min((release.noise for release in own), default=0.0)
    return Line(run, step, rounds, draws, noise, epsilon(own, delta), epsilon(together, delta), refused_from)
