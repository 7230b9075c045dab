"""Running an arm: one federation of its steps in one process, resumed where it was stopped, and what its ledger says.

An arm leaves its scores and costs as one JSON file and is not run again where that exists; workers take the next arm as
they are done.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common.config.load import compose_run
from common.config.rules import check_run
from common.config.run import Run
from common.files import write_json
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.evaluation.course import area_under, replayed, rounds_to
from server.report.reading.record import StepRecord, read_run
from server.report.reading.traffic import typical_bytes
from server.run.folder import RunFolder
from simulations.studies.continual.arms import AT, by_center, by_task, steps_of
from simulations.studies.options.continual import LEARN
from simulations.virtual.centers import data_roots
from simulations.virtual.federate import federate_quietly, worker_count
from simulations.virtual.pool import side_by_side

WHOLE = "all"  # among costs: of the whole run
SETTINGS = {"centers": by_center, "tasks": by_task}  # what arrives with each step


@dataclass(frozen=True)
class Piece:
    """One arm of one setting at one seed."""

    setting: str
    arm: str
    seed: int

    @property
    def file(self) -> str:
        """A file's name without its ending."""
        return f"{self.setting}-{self.arm.replace(' ', '_')}-seed{self.seed}"


@dataclass
class Outcome:
    """What an arm's run left.

    Args:
        start: scores of the state that each step begins with: rows as the ledger has them.
        rows: scores after each step.
        costs: step -> what it cost and how it learned, see `_costs`; `WHOLE` -> seconds, the frozen model's numbers.
    """

    start: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def value(self, *, step: str, task: str, metric: str, center: str) -> float | None:
        """A task's score after a step, None where it has none."""
        return _found(self.rows, step=step, task=task, metric=metric, center=center)

    def value_at_start(self, *, task: str, metric: str, center: str) -> float | None:
        """A task's score before its own step."""
        return _found(self.start, step="start", task=task, metric=metric, center=center)


def run_pieces(
    pieces: Sequence[Piece], run: Run, *, overrides: Sequence[str], folder: Path, say: Callable[[str], None]
) -> dict[Piece, Outcome]:
    """Run what is missing, one process for each worker of the run, and read everything."""
    data_roots(run)  # made once, before workers would make it side by side
    waiting = [piece for piece in pieces if not _file(folder, piece).exists()]
    say(f"{len(waiting)} of {len(pieces)} arms to run")

    def finished(number: int, piece: Piece) -> None:
        say(f"  {number}/{len(waiting)} {piece.setting}: {piece.arm}, seed {piece.seed}")

    work = partial(run_piece, tuple(overrides), folder)
    side_by_side(work, waiting, workers=worker_count(run.runtime), finished=finished)
    return {piece: Outcome(**json.loads(_file(folder, piece).read_text())) for piece in pieces}


def arm_run(run: Run, piece: Piece) -> Run:
    """The run of one arm, its rules checked."""
    own = copy.deepcopy(run)
    own.seed, own.name = piece.seed, piece.file
    arrivals = SETTINGS[piece.setting](own.study)
    own.steps = steps_of(piece.arm, run.steps[LEARN], arrivals, own.study)
    check_run(own)
    return own


def run_piece(overrides: tuple[str, ...], folder: Path, piece: Piece) -> None:
    """Federate an arm's steps, from where a stopped run was, and keep the outcome."""
    run = arm_run(compose_run(overrides), piece)
    began = time.perf_counter()
    leader = federate_quietly(run, RunFolder(folder / "work" / piece.file), without=["CHEST"])
    outcome = outcome_of(leader.ledger, leader.bank)
    outcome.costs[WHOLE] |= {"seconds": round(time.perf_counter() - began, 1)}
    write_json(_file(folder, piece), vars(outcome))


def outcome_of(ledger: Ledger, bank: AdapterBank) -> Outcome:
    """What a run's ledger says, and how much its bank holds."""
    record = read_run(ledger.events())
    found = Outcome(costs={WHOLE: {"frozen": record.begun["backbone"]["parameters"]}})
    for event in ledger.events("start_scores"):
        found.start += event["scores"]
    for step in record.finished:
        assert step.finished is not None
        found.rows += step.finished["scores"]
        if AT in step.name:  # tried beside the arm's own steps: no cost of its
            continue
        found.costs[step.name] = _costs(step, bank.bytes_of(step.finished["key"]))
    return found


def _costs(step: StepRecord, stored: int) -> dict[str, Any]:
    """Rounds; kilobytes up and down of a round and center, and those that the bank keeps of the step; its seconds; its
    adapter's numbers; cases from memories and all that were trained on; how it learned, by its validation cases."""
    again, cases = replayed(step.rounds, step.plan.get("rehearses", {}))
    costs: dict[str, Any] = {"rounds": len(step.rounds), "seconds": (step.finished or {}).get("seconds")}
    for way in ("up", "down"):
        sent = typical_bytes(step.rounds, step.name, way)
        costs[f"kB {way}"] = None if sent is None else round(sent / 1e3, 1)
    costs |= {"kB stored": round(stored / 1e3, 1), "numbers": sum(step.started["parts"].values())}
    costs |= {"replayed": again, "cases": cases}
    return {**costs, "rounds to 95 %": rounds_to(step.course), "area": area_under(step.course)}


def _found(rows: Sequence[dict[str, Any]], **wanted: str) -> float | None:
    own = [row["value"] for row in rows if all(row[name] == value for name, value in wanted.items())]
    return None if not own else own[-1]


def _file(folder: Path, piece: Piece) -> Path:
    return folder / "arms" / f"{piece.file}.json"
