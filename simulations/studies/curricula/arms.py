"""Arms that are whole curricula: each federated in one process for every fold and seed, its test patients scored.

What a part leaves is one JSON file, and a part that has one is not run again; a part that was stopped goes on where its
ledger ends. Records are of patients, so that arms are compared over the same ones.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from common.config.load import compose_run
from common.config.rules import check_run
from common.config.run import Run
from common.config.step import Step
from common.errors import ConfigError, UnknownName
from common.files import write_json
from common.metrics import Estimate
from common.tasks import Observation, build_task
from server.coordinator import Coordinator
from server.report.reading.traffic import bytes_of_rounds
from server.run.folder import RunFolder
from simulations.comparison.kept import observed_of
from simulations.comparison.paired import Patient, difference_of
from simulations.comparison.patients import observe, open_centers, record_of
from simulations.studies.options.curricula import ARMS, Arm, CurriculaStudy
from simulations.virtual.centers import data_roots
from simulations.virtual.federate import federate_quietly, worker_count
from simulations.virtual.pool import side_by_side

SAME = (
    "study",
    "name",
    "seed",
    "steps",
    "curriculum",
    "plugins",
)  # words of a command line that no arm gets as they are
ENCODER = "encoder/"  # the part that stages hand on


@dataclass(frozen=True)
class Part:
    """One arm, fold and seed."""

    arm: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """For folders and files."""
        return f"{self.arm}-fold{self.fold}-seed{self.seed}"


@dataclass
class Found:
    """What a part left.

    Args:
        patients: step -> rows of `simulations.comparison.patients.Observed`, of every step that answers a task.
        retained: stage -> a later stage (or itself) -> how much of the stage's source is restored after that one.
        up: step -> bytes of one center's update in a round, mean over centers and rounds.
        seconds: of processor time in this process.
        vault: bytes in a center's vault at the end, the mean over centers.
    """

    patients: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    retained: dict[str, dict[str, float | None]] = field(default_factory=dict)
    up: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    vault: float = 0.0


@dataclass(frozen=True)
class Arms:
    """A study's arms with all that they left.

    Args:
        steps: arm -> its steps.
        found: arm -> what its parts left, seeds within folds.
    """

    run: Run
    chosen: Mapping[str, Arm]
    steps: Mapping[str, Mapping[str, Step]]
    found: Mapping[str, Mapping[Part, Found]]

    def patients(self, arm: str, task: str) -> tuple[Step, list[Patient]]:
        """The step that answers a task in an arm, and its test patients of all folds with a record a seed."""
        step = self.steps[arm][self.chosen[arm].scored[task]]
        records: dict[tuple[str, str, int], list[Observation]] = {}
        for part, one in self.found[arm].items():
            for row in one.patients[step.name]:
                records.setdefault((row["center"], row["patient"], part.fold), []).append(record_of(row))
        return step, [Patient(*key, tuple(found)) for key, found in sorted(records.items())]

    def score(self, arm: str, task: str, metric: str) -> Estimate:
        """A task's score with its interval over patients, averaged over seeds."""
        step, patients = self.patients(arm, task)
        return difference_of(step, patients, None, metric, draws=self.run.study.draws)

    def difference(self, a: str, b: str, task: str, metric: str) -> Estimate:
        """The paired difference a - b over the patients that both arms scored."""
        (step, left), (other, right) = (self.patients(arm, task) for arm in (a, b))
        common = {_key(p) for p in left} & {_key(p) for p in right}
        left, right = ([p for p in side if _key(p) in common] for side in (left, right))
        return difference_of(step, left, right, metric, draws=self.run.study.draws, of_b=other)

    def mean(self, arm: str, of: Callable[[Found], float | None]) -> float | None:
        """The mean over an arm's parts; None where one has none."""
        values = [of(one) for one in self.found[arm].values()]
        known = [value for value in values if value is not None]
        return statistics.mean(known) if known and len(known) == len(values) else None


def run_arms(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Arms:
    """Run or continue a study's arms, as many at a time as there are workers.

    Raises:
        ConfigError: an arm is unknown, or breaks a rule.
    """
    study: CurriculaStudy = run.study
    known = ARMS[study.kind]
    for arm in study.arms:
        if arm not in known:
            raise UnknownName("arm", arm, known, where="study.arms")
    if not study.arms or not study.seeds or not study.folds:
        raise ConfigError("A study needs one of study.arms, study.seeds and study.folds each at least.")
    composed = {arm: arm_run(known[arm], run, plugins_of(overrides)) for arm in study.arms}
    for one in composed.values():
        check_run(one)
    data_roots(run)  # a phantom cohort is made once, before anyone reads it
    folder = Path(run.out) / run.name
    parts = [Part(*one) for one in product(study.arms, study.folds, study.seeds)]
    waiting = [part for part in parts if not _file(folder, part).exists()]
    workers = max(1, min(worker_count(run.runtime), len(waiting)))
    say(f"{len(waiting)} of {len(parts)} federations to run ({', '.join(study.arms)}), {workers} at a time")
    began = time.perf_counter()

    def finished(number: int, part: Part) -> None:
        spent = time.perf_counter() - began
        left = spent / number * (len(waiting) - number)
        say(f"  {number}/{len(waiting)} {part.name}, about {left / 60:.0f} min left")

    side_by_side(partial(run_part, run, plugins_of(overrides), folder), waiting, workers=workers, finished=finished)
    found = {arm: {part: read_found(folder, part) for part in parts if part.arm == arm} for arm in study.arms}
    return Arms(run, {arm: known[arm] for arm in study.arms}, {a: one.steps for a, one in composed.items()}, found)


def plugins_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """What of a study's command line is composed anew for each arm; the rest comes with the study's run.

    Raises:
        ConfigError: an option of a step, which no two arms need share.
    """
    for text in overrides:
        name = text.lstrip("+~").partition("=")[0]
        if name.startswith("steps.") or "@steps." in name:
            raise ConfigError(
                f"{text}: the arms of this study have steps of their own; set study.stage_rounds, study.task_rounds or "
                "study.view, or run one curriculum with python -m simulations run."
            )
    return tuple(text for text in overrides if text.startswith("plugins="))


def arm_run(arm: Arm, study_run: Run, plugins: Sequence[str]) -> Run:
    """An arm's run: its own steps at the study's size, on the study's data, frozen model and machine."""
    run = compose_run([f"curriculum={arm.curriculum}", *arm.overrides, *plugins])
    run.data, run.runtime = copy.deepcopy(study_run.data), study_run.runtime
    run.backbone = study_run.backbone
    run.steps = {name: step for name, step in run.steps.items() if name not in arm.without}
    for step in run.steps.values():
        is_stage = step.task.kind == "masked" or any(method.kind == "refinement" for method in step.methods)
        step.rounds = study_run.study.stage_rounds if is_stage else study_run.study.task_rounds
        step.view = copy.deepcopy(study_run.study.view)
    return run


def read_found(folder: Path, part: Part) -> Found:
    """A part's file."""
    return Found(**json.loads(_file(folder, part).read_text()))


def _file(folder: Path, part: Part) -> Path:
    return folder / "found" / f"{part.name}.json"


# -------------------------------------------------------------------------------------------------- in a worker process


def run_part(study_run: Run, plugins: Sequence[str], folder: Path, part: Part) -> None:
    """Federate one arm, score every test patient, and keep what a table may want."""
    began = time.process_time()
    arm = ARMS[study_run.study.kind][part.arm]
    run = arm_run(arm, study_run, plugins)
    run.seed, run.data.split.fold = part.seed, part.fold
    work = RunFolder(folder / "arms" / part.name)
    leader, files = federate_quietly(run, work), work.center_files()
    ended = {event["step"]: event for event in leader.ledger.events("step_finished")}
    answering = sorted(set(arm.scored.values()))
    found = Found(
        patients={step: [one.row() for one in observed_of(run, work, ended[step])] for step in answering},
        retained=_retained(leader, files, ended),
        up=_bytes_up(leader),
        seconds=time.process_time() - began,
        vault=statistics.mean(_size(work.path / "vaults" / code) for code in files),
    )
    write_json(_file(folder, part), asdict(found))


def _retained(
    leader: Coordinator, files: Mapping[str, Path], ended: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, float | None]]:
    """How much of each stage's source is restored by its own decoder on the encoder as each later stage left it; of
    stages that hand the encoder on as a whole, not of those that are merged into the frozen model."""
    run = leader.run
    stages = [step for step in run.steps.values() if step.task.kind == "masked" and step.stands_on is None]
    states = {step.name: leader.bank.get(ended[step.name]["key"]) for step in stages}
    handed = [step for step in stages if any(name.startswith(ENCODER) for name in states[step.name])]
    centers = open_centers(dict(files))
    found: dict[str, dict[str, float | None]] = {}
    for place, stage in enumerate(handed):
        event, task = ended[stage.name], build_task(stage.task)
        base, of = leader.bank.entry(event["key"]).base, {"since": event["kept_round"], "run_id": leader.run_id}
        found[stage.name] = {}
        for later in handed[place:]:
            encoder = {name: one for name, one in states[later.name].items() if name.startswith(ENCODER)}
            state = {**states[stage.name], **encoder}
            here = [center for center in centers if center.code in event["evaluated_at"]]
            records = [one.observation for one in observe(run, stage, state, here, base=base, **of)]
            found[stage.name][later.name] = task.metrics(task.sums(records)).get(task.primary) if records else None
    return found


def _bytes_up(leader: Coordinator) -> dict[str, float]:
    found: dict[str, float] = {}
    events = leader.ledger.events()
    for name in leader.run.steps:
        each = [sent for of_round in bytes_of_rounds(events, name, "up") for sent in of_round]
        if each:
            found[name] = statistics.mean(each)
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _key(patient: Patient) -> tuple[str, str, int]:
    return patient.center, patient.patient, patient.fold
