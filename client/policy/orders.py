"""What an order may ask: each rule of a policy against it, before any data is opened.

The code of a refusal travels; its sentence stays in the center's log and says which field of center.yaml decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from client.policy.hours import check_quiet
from client.policy.policy import ALL, NEED_A_WORD, Policy, demands_privacy, test_folds
from common.config.adapter import role_of
from common.config.methods import methods_asked
from common.config.objective import RIDGE
from common.config.options import STATISTICS
from common.config.privacy import DpSgd, NoisedSums
from common.errors import ConfigError, PolicyRefusal
from common.exact.thresholds import THRESHOLDS
from common.protocol.keepsakes import KEEPSAKES
from common.protocol.messages import Order
from common.tasks.cuts import GRID

TRAIN, SUMS = "train", "sums"  # what training patients are asked for


def check_order(
    policy: Policy, order: Order, *, to: str = "", asks: Sequence[str] = (), now: datetime | None = None
) -> None:
    """Raise PolicyRefusal for a step that breaks the local floor, before any data is opened.

    Args:
        to: `TRAIN` or `SUMS` where the answer is made of training patients.
        asks: kinds of sums that the order asks for, of `client.policy.policy.SUMS`.
        now: local time; the clock's where absent.

    Raises:
        ConfigError: quiet hours that are no times, or a step that is none for what is asked.
    """
    _check_learns(order, to)
    for check in _CHECKS:
        refusal = check(policy, order)
        if refusal is not None:
            raise refusal
    for kind in asks:
        if not allows(policy.sums, kind):
            raise PolicyRefusal("declined.sums", f"policy.sums allows {policy.sums}; the order asks for {kind}.")
    check_quiet(policy, now or datetime.now())


def allows(listed: Sequence[str], kind: str, *, but: Iterable[str] = ()) -> bool:
    """Whether a list of a policy allows a kind.

    Args:
        but: kinds that an empty list does not allow.
    """
    return kind in listed or ALL in listed or (not listed and kind not in but)


def sums_asked(order: Order) -> list[str]:
    """The kind of sums over training cases that an order for sums asks for."""
    if order.subset == STATISTICS:
        return ["labels"]
    if order.subset == GRID:
        return ["grid"]
    if order.subset == THRESHOLDS:
        return ["thresholds"]
    if order.subset == KEEPSAKES:
        return ["keepsakes"]
    if getattr(order.step.federation, "objective", "") == RIDGE:
        return ["gram"]
    noised = isinstance(order.step.privacy, NoisedSums)  # whose first question is a gradient and a Hessian, too
    return ["moments"] if order.round == 0 and not noised else ["newton"]


def scores_asked(order: Order) -> list[str]:
    """The kinds of sums that an order for scores asks for."""
    return ["scores", "curves"] if order.wants_curves else ["scores"]


def _check_learns(order: Order, to: str) -> None:
    """Raise ConfigError for an order to learn from a step that says it learns nothing, or not so.

    Several rules (noise, batches, epochs) look at what a step says of itself; they must not be walked around by a step
    without rounds that is trained all the same. Statistics are a step of their own, of which nothing is learned.
    """
    step = order.step
    if to and step.rounds == 0 and order.subset != STATISTICS:
        raise ConfigError(f"Step '{step.name}' has no rounds, so nothing is learned for it; the order asks to {to}.")
    if to == TRAIN and step.federation.kind == "newton":
        raise ConfigError(f"Step '{step.name}' is fitted exactly, from sums; the order asks to train it by batches.")


def _task(policy: Policy, order: Order) -> PolicyRefusal | None:
    kind = order.step.task.kind
    if allows(policy.tasks, kind):
        return None
    return PolicyRefusal("declined.task", f"Local policy allows {policy.tasks}; the step asks for '{kind}'.")


def _federation(policy: Policy, order: Order) -> PolicyRefusal | None:
    """The aggregation rule, and what the step asks of local training beside its task."""
    asked = [order.step.federation.kind, *(method.kind for method in methods_asked(order.step))]
    return _declined("federations", policy.federations, sorted(set(asked)), "declined.federation")


def _parts(policy: Policy, order: Order) -> PolicyRefusal | None:
    """Kinds of parts; one that a plugin brings needs the word of the shipped kind in whose place it stands."""
    parts = list(order.step.adapter.parts.values())
    asked = {part.kind for part in parts} | ({role_of(part) for part in parts} if not policy.parts else set())
    return _declined("parts", policy.parts, sorted(asked), "declined.part")


def _declined(name: str, listed: Sequence[str], asked: Sequence[str], code: str) -> PolicyRefusal | None:
    but = NEED_A_WORD[name]
    foreign = [kind for kind in asked if not allows(listed, kind, but=but)]
    if not foreign:
        return None
    why = "".join(f" {kind}: {but[kind]}." for kind in foreign if kind in but)
    allowed = f"allows {list(listed)}" if listed else f"allows all but {', '.join(sorted(but))}"
    return PolicyRefusal(
        code,
        f"policy.{name} {allowed}; the step has {', '.join(foreign)}.{why} To allow it, name there every kind that may "
        "run.",
    )


def _base(policy: Policy, order: Order) -> PolicyRefusal | None:
    """A base that grew is judged by its root: its stages are steps whose parts the policy has allowed one by one."""
    if not policy.bases or {order.base, order.root} & {*policy.bases}:
        return None
    return PolicyRefusal("declined.base", f"Frozen model {order.base[:12]} is not on the local allow-list.")


def _batch(policy: Policy, order: Order) -> PolicyRefusal | None:
    """Under DP-SGD it is how many patients are expected in a draw."""
    step = order.step
    asked = step.privacy.batch if isinstance(step.privacy, DpSgd) else step.training.batch
    if not _trains(order) or asked >= policy.minimum_batch:
        return None
    return PolicyRefusal(
        "declined.batch", f"The step trains on batches of {asked}; policy.minimum_batch is {policy.minimum_batch}."
    )


def _epochs(policy: Policy, order: Order) -> PolicyRefusal | None:
    asked = order.step.training.epochs
    if not _trains(order) or asked <= policy.maximum_epochs:
        return None
    return PolicyRefusal(
        "declined.epochs",
        f"The step asks for {asked} epochs a round; policy.maximum_epochs is {policy.maximum_epochs}.",
    )


def _rounds(policy: Policy, order: Order) -> PolicyRefusal | None:
    asked = max(order.round, order.step.rounds)
    if asked <= policy.maximum_rounds:
        return None
    return PolicyRefusal(
        "declined.rounds", f"The step asks for {asked} rounds; local policy allows {policy.maximum_rounds}."
    )


def _test_fold(policy: Policy, order: Order) -> PolicyRefusal | None:
    """Whose test patients: with another fold those who trained so far would test."""
    folds = test_folds(policy)
    if folds is None or order.split.fold in folds:
        return None
    return PolicyRefusal(
        "declined.split",
        f"The order asks for fold {order.split.fold} as the test; local policy allows {', '.join(map(str, folds))}. "
        "A cross-validated study needs policy.test_folds: all: then every patient trains some models and tests others.",
    )


def _privacy(policy: Policy, order: Order) -> PolicyRefusal | None:
    spec = order.step.privacy
    if not demands_privacy(policy) or order.step.rounds == 0 or (spec is not None and spec.noise_seed is None):
        return None
    if spec is not None:
        return PolicyRefusal(
            "declined.privacy",
            f"Step '{order.step.name}' draws noise from a known seed, which protects nobody; policy.privacy or "
            "policy.require_privacy asks for noise that does.",
        )
    return PolicyRefusal(
        "declined.privacy",
        f"Step '{order.step.name}' learns from patients without noise; policy.privacy or policy.require_privacy asks "
        "for steps with `privacy`.",
    )


def _secure_aggregation(policy: Policy, order: Order) -> PolicyRefusal | None:
    if not policy.require_secure_aggregation or order.step.federation.secure_aggregation:
        return None
    return PolicyRefusal(
        "declined.secure_aggregation",
        f"policy.require_secure_aggregation asks for secure sums; step '{order.step.name}' has none "
        "(federation.secure_aggregation).",
    )


def _trains(order: Order) -> bool:
    """Whether the step has rounds of batches; an exact fit asks for sums instead."""
    return order.step.rounds > 0 and order.step.federation.kind != "newton"


_CHECKS: tuple[Callable[[Policy, Order], PolicyRefusal | None], ...] = (
    _task, _federation, _parts, _base, _batch, _epochs, _rounds, _test_fold, _privacy, _secure_aggregation,
)  # fmt: skip
