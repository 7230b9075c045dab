"""What is wrong with the methods that a step lists, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.config.methods import CONTINUAL, methods_asked
from common.config.run import Run
from common.config.step import Step

OF_A_RULE = ("feddyn", "scaffold")  # their other end is the aggregation rule of the same name
LEAST: dict[str, tuple[float, float, str]] = {  # option -> least, most, in words
    "strength": (0.0, float("inf"), "0 or more"),
}


def method_problems(step: Step, run: Run) -> Iterator[str]:
    """Methods that are there twice, cannot go together or have an option out of its range."""
    kinds = [spec.kind for spec in methods_asked(step)]
    listed = [spec.kind for spec in step.methods]
    for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1} - {*OF_A_RULE}):
        where = f"; federation asks for {kind} by an option of its own" if listed.count(kind) == 1 else ""
        yield f"method {kind} is asked for twice{where}; once is enough."
    for kind in (kind for kind in OF_A_RULE if kind in listed):
        yield (
            f"method {kind} is one end of an aggregation rule and comes with it; take it out of methods and set "
            f"federation@steps.{step.name}.federation={kind}."
        )
    others = sorted({*listed} & CONTINUAL - {"sequential"})
    if "sequential" in listed and others:
        yield f"method sequential says that nothing keeps what was known, {', '.join(others)} keeps it; use one."
    for spec in step.methods:
        yield from _out_of_range(spec)


def _out_of_range(spec: Any) -> Iterator[str]:
    for option, (least, most, words) in LEAST.items():
        value = getattr(spec, option, None)
        if value is not None and not least <= value <= most:
            yield f"method {spec.kind} has {option} {value:g}; it must be {words}."
