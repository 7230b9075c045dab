"""What a step may stand on: the frozen model as it is, or with an earlier step merged in, as finished sentences."""

from __future__ import annotations

from collections.abc import Iterator

from common.config.adapter import role_of
from common.config.run import Run
from common.config.step import Step

SIMILARITY = "similarity"
SELECTS = ("random", SIMILARITY)  # how method medseqft chooses what it keeps


def teachers_of(step: Step) -> list[str]:
    """Names of the steps whose models teach a step, or score its cases."""
    found = [spec.teacher for spec in step.methods if spec.kind == "refinement"]
    return found + [spec.original for spec in step.methods if spec.kind == "medseqft" and spec.select == SIMILARITY]


def standing_problems(run: Run) -> Iterator[str]:
    """Steps that stand on, or are taught by, a step which is not there before them or of which nothing is merged."""
    names = list(run.steps)
    for name, step in run.steps.items():
        asked = [("stands on", step.stands_on)] if step.stands_on is not None else []
        asked += [("is taught by", teacher) for teacher in teachers_of(step)]
        for verb, other in asked:
            if run.continues and other not in names and verb == "stands on":
                continue
            for problem in _of_another(run, other or "", earlier=names[: names.index(name)]):
                yield f"Step '{name}' {verb} '{other}', {problem}"
        yield from _medseqft(name, step, run)


def _of_another(run: Run, other: str, *, earlier: list[str]) -> Iterator[str]:
    if other not in earlier:
        yield (
            f"which is not an earlier step; earlier: {', '.join(earlier) or 'none'}. It must end before this begins."
        )
        return
    yield from _unmergeable(run.steps[other])


def _medseqft(name: str, step: Step, run: Run) -> Iterator[str]:
    for spec in (spec for spec in step.methods if spec.kind == "medseqft"):
        if step.stands_on is None:
            yield (
                f"Step '{name}' lists method medseqft, which keeps what the model it stands on says, and stands on the "
                "model as it is: set stands_on to the first stage or to the last refined task."
            )
        other = run.steps.get(spec.original)
        if spec.select == SIMILARITY and other is not None and other.task is not None and other.task.kind != "masked":
            yield (
                f"Step '{name}' lists method medseqft, which scores cases by what '{spec.original}' restores, and that "
                "has no head for it: name a masked task as original, or set select to random."
            )
        if spec.select not in SELECTS or spec.draws < 1 or not 0 <= spec.share < 1:
            yield (
                f"Step '{name}' lists method medseqft with select '{spec.select}', draws {spec.draws} and share "
                f"{spec.share:g}; select is {' or '.join(SELECTS)}, draws 1 or more, share 0 or more and below 1."
            )


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
