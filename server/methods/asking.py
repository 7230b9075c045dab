"""A step's end: its centers are asked once for what its methods keep; screened, added up, stored beside the adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.config.step import Step
from common.errors import RoundFailed
from common.protocol.keepsakes import FISHER, KEEPSAKES, MOMENT, keeping, keepsake_shapes
from common.protocol.messages import Order, Reply, State, Sums
from common.protocol.wire import COUNTS_OF
from common.store.bank import AdapterBank, Entry
from common.tasks import merge_sums
from common.tasks.bounds import SLACK, impossible
from server.centers.federation import Exchange
from server.centers.quarantine import record_rejected
from server.centers.screening import Expected, Rejection, outliers, screen
from server.coordinator import Coordinator
from server.learning.core import quorum
from server.methods import ends_of
from server.methods.base import Ended, KeepsakeMissing


def before(bank: AdapterBank, step: Step, key: str | None) -> dict[str, State]:
    """Kind -> what the adapter that a step starts from has kept for it; empty states for a start from the seed.

    Raises:
        KeepsakeMissing: it kept nothing for one of them.
    """
    found: dict[str, State] = {}
    for kind in keeping(step):
        kept = {} if key is None else bank.keepsake(key, kind)
        if kept is None:
            raise KeepsakeMissing(
                f"Step '{step.name}' lists {kind}, and the adapter that it starts from ({str(key)[:12]}) kept nothing "
                f"for it: its step did not list {kind}. List it there too, in a new run, or take it out here "
                f"(steps.{step.name}.methods)."
            )
        found[kind] = kept
    return found


def keep(coordinator: Coordinator, order: Order, entry: Entry, centers: Sequence[str], *, key: str | None) -> None:
    """Ask for what a step's methods keep, and store it beside the step's adapter; what is there is not asked again.

    Args:
        order: with the state that the step keeps, and its round.
        key: of the adapter that the step started from.

    Raises:
        RoundFailed: fewer centers than the quorum answered; the same command asks again.
    """
    step, bank = order.step, coordinator.bank
    kinds = [kind for kind in keeping(step) if bank.keepsake(entry.key, kind) is None]
    if not kinds:
        return
    earlier = before(bank, step, key)
    told, event = answers(coordinator, replace(order, subset=KEEPSAKES), centers)
    ended = Ended(step, order.state, order.base, told)
    ends = ends_of(step)
    digests = {kind: bank.store_keepsake(entry.key, kind, ends[kind].keeps(ended, earlier[kind])) for kind in kinds}
    coordinator.ledger.append(
        "keepsakes_stored", {**event, "key": entry.key, "kept": digests, "cases": int(ended.cases)}
    )
    what = ", ".join(f"{kind} {digest[:12]}" for kind, digest in digests.items())
    coordinator.narrator.say(f"          kept for later steps, of {ended.cases:g} patients: {what}")


def answers(
    coordinator: Coordinator, order: Order, centers: Sequence[str], *, about: str = "is trained"
) -> tuple[Sums, dict]:
    """The sums over the centers that can be used, and the event that tells of it. Raises RoundFailed.

    Args:
        about: where the step is, for the sentence of a quorum that was not reached.
    """
    step, ledger = order.step, coordinator.ledger
    kept_out = coordinator.roster.kept_from_training(limit=step.federation.guards.strikes)
    asked = [center for center in centers if center not in kept_out and center in coordinator.federation.nodes]
    exchange = coordinator.federation.ask(asked, order, "query.sums")
    replies, failed = _screened(coordinator, order, exchange)
    for center, rejection in failed.items():
        record_rejected(ledger, center, rejection, step=step.name, action="sums")
    codes = {center: rejection.code for center, rejection in failed.items()}
    event = {
        "step": step.name, "round": order.round, "centers": sorted(replies), "failed": codes,
        "bytes": exchange.bytes, "seconds": round(exchange.seconds, 4),
    }  # fmt: skip
    needed = quorum(step.federation.quorum, len(centers))
    if len(replies) < needed:
        ledger.append("keepsakes_refused", event)
        whys = ", ".join(f"{center}: {code}" for center, code in codes.items()) or "nobody was there to be asked"
        raise RoundFailed(
            f"Step '{step.name}' {about}, but {len(replies)} of at least {needed} centers told what "
            f"{', '.join(keeping(step))} keeps of it ({whys}). Nothing is lost: start the same command again to ask "
            "anew."
        )
    return merge_sums([reply.sums for _, reply in sorted(replies.items())]), event


def _screened(
    coordinator: Coordinator, order: Order, exchange: Exchange
) -> tuple[dict[str, Reply], dict[str, Rejection]]:
    """Usable answers by center, and why the others are not."""
    shapes = keepsake_shapes(order.state, order.step)
    replies, failed = dict(exchange.replies), {}
    for center in sorted(replies):
        most = coordinator.roster.registered(center, "train")
        rejection = screen(replies[center], _expected(shapes, most))
        if rejection is not None:
            failed[center] = rejection
    usable = {center: reply for center, reply in sorted(replies.items()) if center not in failed}
    norms = {center: lengths(reply.sums) for center, reply in usable.items()}
    failed |= outliers(norms, order.step.federation.guards)
    return {center: reply for center, reply in usable.items() if center not in failed}, dict(sorted(failed.items()))


def _expected(shapes: Mapping[str, tuple[int, ...]], most: float | None) -> Expected:
    moments = frozenset(name for name in shapes if name.startswith(MOMENT))

    def wrong(sums: Sums, cases: float) -> str:
        found = impossible(sums, bounds=(), signed=moments, cases=cases)
        return found or next((said for name in sorted(moments & sums.keys()) if (said := _no_moment(name, sums))), "")

    needed, counts = frozenset(shapes) - moments, COUNTS_OF["sums"]
    return Expected(shapes, needed=needed, empty=False, cases=most, impossible=wrong, counts=counts)


def _no_moment(name: str, sums: Sums) -> str:
    """Why a sum is no second moment of anything, as a phrase."""
    value, diagonal = sums[name], np.diagonal(sums[name])
    most = np.sqrt(np.maximum(diagonal, 0))
    if (diagonal < -SLACK).any():
        return f"{name} has a negative square"
    if (np.abs(value) > np.outer(most, most) * (1 + SLACK) + SLACK).any():
        return f"{name} has a product above its squares"
    return ""


def lengths(sums: Sums) -> dict[str, float]:
    """Part -> the root of the mean patient's squares: what an answer of a center is compared by."""
    found: dict[str, float] = {}
    for name, value in sums.items():
        mark = next((mark for mark in (FISHER, MOMENT) if name.startswith(mark)), None)
        if mark is not None:
            part = mark + name.removeprefix(mark).partition("/")[0]
            square = np.trace(value) if mark == MOMENT else np.sum(value)
            found[part] = found.get(part, 0.0) + float(square) / max(float(sums["fit.cases"]), 1.0)
    return {part: max(square, 0.0) ** 0.5 for part, square in found.items()}
