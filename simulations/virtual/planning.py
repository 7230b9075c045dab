"""What a simulation's data hold for a run: its centers, and how many cases of each train, validate and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from client.data.case import untold_of
from client.data.layouts import find_cases
from client.data.splits import split_cases
from common.config.run import PARTS, Run
from common.errors import DataError
from common.protocol.messages import TOO_FEW_CASES
from simulations.phantom.cohort import is_drawn
from simulations.virtual.centers import data_roots

Counts = Mapping[str, Mapping[str, int]]  # center -> part of the split -> cases


def cohort_found(run: Run) -> tuple[list[str], list[str]]:
    """What is there, one line each, and what is wrong with it, one sentence each. Nothing is drawn or written."""
    data = run.data
    if data.kind == "phantom" and not is_drawn(Path(data.root), scale=data.scale, seed=data.seed, organs=data.organs):
        return [f"cases: none yet; the first run draws the phantom cohort of scale {data.scale} in {data.root}"], []
    try:
        counts = counted(run)
    except DataError as error:
        return [], list(error.problems)
    facts = [f"{center}: {', '.join(f'{n} {part}' for part, n in parts.items())}" for center, parts in counts.items()]
    return [*facts, told_altogether(counts), *small_centers(run, counts)], [*absent(run, counts), *too_few(run, counts)]


def told_altogether(counts: Counts) -> str:
    """How many train, validate and test over all centers, and where nobody validates."""
    parts = ", ".join(f"{sum(of[part] for of in counts.values())} {part}" for part in PARTS)
    without = [center for center, of in counts.items() if not of["validation"]]
    if without and len(without) == len(counts):
        return f"all centers: {parts}; nobody validates"
    return f"all centers: {parts}" + (f"; nobody validates at {', '.join(without)}" if without else "")


def counted(run: Run) -> dict[str, dict[str, int]]:
    """Cases by center and part of the split, whatever a step needs of them.

    Raises:
        DataError: they cannot be read, or a step needs an outcome that cannot be used.
    """
    found: dict[str, dict[str, int]] = {}
    needs_outcome = any(step.task.kind == "prognosis" for step in run.steps.values())
    for root in data_roots(run):
        everyone = find_cases(root, mapping=run.data.mapping, layout=run.data.layout)
        if needs_outcome and (untold := untold_of(everyone)):
            raise DataError(untold)
        for part, cases in split_cases(everyone, split=run.data.split).items():
            for case in cases:
                found.setdefault(case.center, dict.fromkeys(PARTS, 0))[part] += 1
    return dict(sorted(found.items()))


def check_cases(run: Run, *, say: Callable[[str], None] = print) -> None:
    """Of one's own folder, before anything starts: who has too few cases to train.

    Raises:
        DataError: all have, or an outcome that a step needs cannot be used.
    """
    if run.data.kind != "folder":
        return
    counts = counted(run)
    if run.data.minimum_cases <= 1:
        return
    if problems := too_few(run, counts):
        raise DataError(problems)
    for line in small_centers(run, counts):
        say(line)


def small_centers(run: Run, counts: Counts) -> list[str]:
    """Centers that will not train, one line; nothing where there are none."""
    small = _small(run, counts)
    if not small:
        return []
    return [f"{_trains(small)}, fewer than data.minimum_cases={run.data.minimum_cases}: {TOO_FEW_CASES} there"]


def too_few(run: Run, counts: Counts) -> list[str]:
    """What is wrong where no center has the cases that the run's policy asks for."""
    small = _small(run, counts)
    if not small or len(small) < len(counts) or not any(step.rounds for step in run.steps.values()):
        return []
    split = run.data.split
    return [
        f"No center under {run.data.root} has {run.data.minimum_cases} cases to train (data.minimum_cases): "
        f"{_trains(small)} of fold {split.fold} of {split.folds}. More folds leave more to train "
        f"(data.split.folds={split.folds + 2}); where single patients may stand in the results, as in a public cohort, "
        "say data.minimum_cases=1 data.minimum_cell=1."
    ]


def _small(run: Run, counts: Counts) -> dict[str, int]:
    return {center: n["train"] for center, n in counts.items() if n["train"] < run.data.minimum_cases}


def _trains(small: Mapping[str, int]) -> str:
    return f"training cases: {', '.join(f'{center} {n}' for center, n in small.items())}"


def absent(run: Run, counts: Counts) -> list[str]:
    """Trained steps that name a center without a case here."""
    problems = []
    for name, step in run.steps.items():
        lost = sorted({*step.centers, *step.evaluate_at} - {"*"} - set(counts))
        if lost and step.rounds > 0:
            problems.append(
                f"Step '{name}' names {', '.join(lost)}, which has no case under {run.data.root}; there are cases of "
                f"{', '.join(counts) or 'nobody'}."
            )
    return problems
