"""What a step may stand on: the frozen model as it is, or with an earlier step merged in, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator

from common.config.adapter import role_of
from common.config.run import Run
from common.config.step import Step


def standing_problems(run: Run) -> Iterator[str]:
    """Steps that stand on a step which is not there before them, or of which nothing can be merged."""
    names = list(run.steps)
    for name, step in run.steps.items():
        asked, earlier = step.stands_on, names[: names.index(name)]
        if asked is None or (run.continues and asked not in names):
            continue
        if asked not in earlier:
            yield (
                f"Step '{name}' stands on '{asked}', which is not an earlier step; earlier: "
                f"{', '.join(earlier) or 'none'}. A step stands on what was merged before it began."
            )
            continue
        for problem in _unmergeable(run.steps[asked]):
            yield f"Step '{name}' stands on '{asked}', {problem}"


def _unmergeable(step: Step) -> Iterator[str]:
    """Why nothing of a step can be merged into the frozen model."""
    roles = {role_of(part) for part in step.adapter.parts.values()}
    normed = [n for n, part in step.adapter.parts.items() if role_of(part) == "lora" and part.dora]
    if step.rounds == 0:
        yield "which is never trained; name one that is, or leave stands_on out."
    elif not roles & {"full", "lora"}:
        yield (
            f"of which nothing is inside the frozen model (its parts: {', '.join(sorted(roles)) or 'none'}); give it a "
            "lora or a full part, or leave stands_on out."
        )
    elif normed:
        yield (
            f"whose part '{normed[0]}' scales rows (dora: true), which cannot be merged exactly; set dora to false "
            "there."
        )
