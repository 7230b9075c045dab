"""What no order may ask of any hospital: whatever breaks the server's own rules, and numbers and names out of bounds.

The same functions check a run before the server starts it. An order that fails here was not made by this project's
server, or by one of another release.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from common.config.declared import not_comparable
from common.config.limits.ceilings import LONGEST_NAME
from common.config.load import from_json, step_from_json, step_to_json, to_json
from common.config.options import STATISTICS
from common.config.rules import broken_by_step
from common.config.run import BackboneSpec
from common.errors import ConfigError, WireError
from common.exact.thresholds import THRESHOLDS
from common.protocol.arrays import is_finite
from common.protocol.keepsakes import KEEPSAKES
from common.protocol.messages import Order
from common.protocol.wire import TEST
from common.tasks.cuts import GRID

SUBSETS = ("", "train", "validation", "test", GRID, KEEPSAKES, STATISTICS, THRESHOLDS)
MOST_NAMES = 100_000  # of tensors
LARGEST = 1 << 53
_HEX = re.compile(r"[0-9a-f]{0,64}")
_RUN = re.compile(r"[A-Za-z0-9_-]{0,64}")


def check_asked(order: Order) -> None:
    """Raise for an order that no hospital answers.

    Raises:
        ConfigError: the step breaks a rule of the server's, or a ceiling (all of them listed).
        WireError: its own numbers and names are out of bounds, or its arrays are not finite.
    """
    check_step(order)
    if order.compared is not None:
        check_step(replace(order, step=order.compared))
    wrong = [*_numbers(order), *_names(order), *_arrays(order)]
    if wrong:
        raise WireError(f"An order cannot be followed: {'; '.join(wrong)}.")


def check_step(order: Order) -> None:
    """Raise ConfigError with every rule of the server's and every ceiling that the order's step breaks."""
    problems = _broken(step_to_json(order.step), to_json(order.backbone))
    if problems:
        raise ConfigError("\n".join(problems))


def echoed(order: Order) -> tuple[int, str]:
    """Round and id of an order as a reply may repeat them: nothing that is no number or no id."""
    return (order.round if 0 <= order.round < LARGEST else 0), (order.id if _HEX.fullmatch(order.id) else "")


@lru_cache(maxsize=64)  # every message of a step carries it
def _broken(step: str, backbone: str) -> tuple[str, ...]:
    return tuple(broken_by_step(step_from_json(step), from_json(BackboneSpec, backbone)))


def _numbers(order: Order) -> Iterator[str]:
    for name, value in _whole(order):
        if not 0 <= value < LARGEST:
            yield f"{name} is {value}"
    if order.threshold is not None and not math.isfinite(order.threshold):
        yield f"threshold is {order.threshold}"


def _whole(order: Order) -> list[tuple[str, int]]:
    return [(name, getattr(order, name)) for name in ("seed", "round", "since", "best", "earlier")]


def _names(order: Order) -> Iterator[str]:
    if order.compared is not None and (order.subset != TEST or order.mode or order.masking is not None):
        yield "two models are compared on test patients only"
    if order.compared is not None and (why := not_comparable(order.compared, order.step)):
        yield f"two models cannot be compared: {why}"
    if (order.subset == STATISTICS) != (order.step.task.kind == STATISTICS and order.subset != ""):
        yield "statistics are asked by a step of statistics, and nothing else by such a step"
    if order.subset not in SUBSETS:
        yield f"subset is '{order.subset[:LONGEST_NAME]}', which is none of {', '.join(filter(None, SUBSETS))}"
    for name, value in (("id", order.id), ("digest", order.digest), ("reference", order.reference), *_of_base(order)):
        if not _HEX.fullmatch(value):
            yield f"{name} is no digest"
    if not (_RUN.fullmatch(order.run) and _RUN.fullmatch(order.continues)):
        yield "run is no id"
    longest = max(map(len, [order.mode, order.base, *order.seeded]), default=0)
    if longest > 10 * LONGEST_NAME or len(order.seeded) > MOST_NAMES:
        yield f"a name of {longest} letters, or {len(order.seeded)} names"


def _of_base(order: Order) -> list[tuple[str, str]]:
    """What names a grown base, and the stage that makes one more."""
    named = [("root", order.root), ("teacher", order.teacher), ("stage", order.stage), ("grown", order.grown)]
    return named + [(f"a key of {what}", key) for what in ("merged", "parents") for key in getattr(order, what)]


def _arrays(order: Order) -> Iterator[str]:
    """Adapters and sums whose numbers are not finite would train without a word, and answer with such numbers."""
    arrays = {**order.state, **order.extra}
    broken = [name for name, tensor in arrays.items() if not is_finite(tensor)]
    broken += [name for name, value in order.known.items() if not np.isfinite(value).all()]
    if broken:
        yield f"{len(broken)} arrays are not finite, the first {broken[0][:LONGEST_NAME]}"
