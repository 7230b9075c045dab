"""Checks on every reply before the server uses it; what fails one is quarantined with a code and a sentence.

Declared names, shapes and types, whole parts, finite values, sums that some patients could make, counts within those
registered at enrolment, no copy of an earlier update, and a norm within a bound that the round's other updates give.
The bound is a median: with seven centers a mean and a standard deviation could never call one of them an outlier (the
largest possible z-score of n values is (n - 1) / sqrt(n), 2.3 for seven).
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from common.config.federation import Guards
from common.data.subgroups import apart, sums_told
from common.errors import WireError
from common.protocol.arrays import is_finite
from common.protocol.messages import Reply, State, Sums
from common.protocol.wire import COUNTS_OF, FIT_SUMS, STATUS_COUNTS, check_declared
from common.tasks.base import Task
from common.tasks.bounds import flattened, impossible

NORMAL_MAD = 1.4826  # a normal distribution's standard deviation in median absolute deviations
FEWEST_FOR_NORMS = 3
SAMPLE = 256  # leading numbers of each tensor that a fingerprint looks at


@dataclass(frozen=True)
class Rejection:
    """Why a reply is not used: a code, and what was measured."""

    code: str
    told: str = ""


@dataclass(frozen=True)
class Expected:
    """What the answer to a question may carry, and what it must.

    Args:
        shapes: name -> shape of every sum.
        state, extra: arrays of the declared form.
        needed: sums that an answer has, all of them, if it has any.
        empty: whether an answer without sums is one (too few cases to tell anything).
        cases: how many cases it can be over at most; None where nobody knows.
        impossible: what about finite sums no patients can make, as a phrase.
        counts: those that the action's answers hold.
    """

    shapes: Mapping[str, tuple[int, ...]]
    state: State = field(default_factory=dict)
    extra: State = field(default_factory=dict)
    needed: frozenset[str] = frozenset()
    empty: bool = True
    cases: float | None = None
    impossible: Callable[[Sums, float], str] = lambda sums, cases: ""
    counts: Collection[str] = STATUS_COUNTS


def expected_of_task(
    task: Task,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    cases: float | None,
    needed: Iterable[str] = (),
    action: str = "evaluate",
) -> Expected:
    """The sums of a task, with the bounds that it declares, as an action's answer may hold them."""

    def wrong(sums: Sums, most: float) -> str:
        everybody, by_level = apart(sums)
        own = float(everybody["fit.cases"]) if "fit.cases" in everybody else most
        known = {*sums_told(task.by_subgroup), "cases"}
        for level, said in by_level.items():
            if set(said) != known:
                return f"{level} lacks some of its sums"
            found = impossible(said, bounds=task.bounds, signed=task.signed, cases=own)
            if found:
                return f"{level}: {found}"
        return impossible(everybody, bounds=task.bounds, signed=task.signed, cases=own)

    return Expected(shapes, needed=frozenset(needed), cases=cases, impossible=wrong, counts=COUNTS_OF[action])


def screen(reply: Reply, expected: Expected) -> Rejection | None:
    """Why a reply must not be used; None when it may be. The one screen for every kind of answer."""
    found = check_form(
        reply,
        state_like=expected.state,
        sum_shapes=expected.shapes,
        extra_like=expected.extra,
        counts=expected.counts,
    )
    if found:
        return found
    absent = sorted(expected.needed - set(reply.sums)) if reply.sums or not expected.empty else []
    if absent:
        return Rejection("incomplete", f"{len(absent)} sums are missing, the first {absent[0]}")
    most = math.inf if expected.cases is None else expected.cases
    claimed = max(float(reply.sums.get("fit.cases", 0.0)), 0.0)
    if claimed > most:
        return Rejection("counts", f"scores over {claimed:g} cases, {most:g} registered")
    wrong = expected.impossible(reply.sums, most)
    return Rejection("impossible", wrong) if wrong else None


def check_form(
    reply: Reply,
    *,
    state_like: State,
    sum_shapes: Mapping[str, tuple[int, ...]],
    extra_like: State | None = None,
    counts: Collection[str] = STATUS_COUNTS,
) -> Rejection | None:
    """Declared names, shapes and types, and finite values. Whose answer it is, `read_reply` has seen to."""
    if not reply.is_usable:
        return Rejection(reply.code, f"it answers round {reply.round}" if reply.code == "stale" else reply.told)
    try:
        check_declared(reply, state_like=state_like, sum_shapes=sum_shapes, extra_like=extra_like, counts=counts)
    except WireError as error:
        return Rejection("undeclared", str(error)[:300])
    arrays = [*reply.state.items(), *reply.extra.items()]
    broken = [name for name, tensor in arrays if not is_finite(tensor)]
    if not np.isfinite(flattened(list(reply.sums.values()))).all():
        broken += [name for name, value in reply.sums.items() if not np.isfinite(value).all()]
    return Rejection("not_finite", f"{len(broken)} arrays, the first {broken[0]}") if broken else None


def missing_in_update(reply: Reply, *, state_like: State, noised: bool = False) -> str | None:
    """``incomplete`` for an update without whole parts, its fit sums or its counts; parts may be absent altogether.

    Args:
        noised: the step asks for privacy, so that no sums come with an update.
    """
    sent = {name.partition("/")[0] for name in reply.state}
    whole = {name for name in state_like if name.partition("/")[0] in sent}
    counted = {"cases", "batches"} <= set(reply.counts) and (noised or set(FIT_SUMS) <= set(reply.sums))
    return None if sent and whole == set(reply.state) and counted else "incomplete"


def inflated(reply: Reply, *, registered: int) -> Rejection | None:
    """Counts beyond those registered at enrolment, as a rejection: nobody gains weight by claiming cases."""
    claimed = reply.counts.get("cases", 0)
    if claimed > registered:
        return Rejection("counts", f"it claims {claimed} cases, {registered} are registered")
    return None


def weighed_cases(reply: Reply, *, registered: int) -> int:
    """Cases that count: those that the center says it used, never more than registered. (How many it skipped is told
    as the minimum where it is fewer, so that it cannot be subtracted.)"""
    return max(0, min(registered, reply.counts["cases"]))


def outliers(norms: Mapping[str, Mapping[str, float]], guards: Guards) -> dict[str, Rejection]:
    """Centers whose update is too long in some part, by center.

    Args:
        norms: center -> part -> length of the center's change of that part.
        guards: a length is too long beyond ``norm_cap``, or beyond both ``norm_factor`` medians and the median plus
            ``norm_mads`` scaled median absolute deviations of the part's lengths (three centers or more).
    """
    found: dict[str, Rejection] = {}
    for part in sorted({part for parts in norms.values() for part in parts}):
        lengths = {center: parts[part] for center, parts in sorted(norms.items()) if part in parts}
        bound = norm_bound(lengths.values(), guards)
        for center, length in lengths.items():
            if length > bound:
                told = f"part {part} moves by {length:.4g}, the bound is {bound:.4g} among {len(lengths)} centers"
                found.setdefault(center, Rejection("norm", told))
    return found


def norm_bound(lengths: Iterable[float], guards: Guards) -> float:
    """The longest allowed change of a part, given every center's; infinite where nothing bounds it."""
    values = sorted(lengths)
    cap = math.inf if guards.norm_cap is None else guards.norm_cap
    if guards.norm_factor <= 0 or len(values) < FEWEST_FOR_NORMS:
        return cap
    median = statistics.median(values)
    if median <= 0:  # most centers moved nothing: there is no scale to compare with
        return cap
    deviation = NORMAL_MAD * statistics.median(abs(value - median) for value in values)
    return min(cap, max(guards.norm_factor * median, median + guards.norm_mads * deviation))


def fingerprint(state: State) -> str:
    """A short digest of names and of each tensor's first numbers: enough to know a copy, cheap for large states."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().reshape(-1)[:SAMPLE].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def replayed(print_: str, *, start: str, seen: Mapping[str, str]) -> bool:
    """Whether an update was sent before from another start (from the same start, equal work gives equal bits).

    Args:
        start: fingerprint of the round's start; an update that changes nothing is no replay.
        seen: fingerprint of every earlier accepted update -> that of its start.
    """
    return print_ != start and print_ in seen and seen[print_] != start
