"""A comparison: its configuration, its cells and jobs, and where each of them leaves what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from common.config.load import compose_run
from common.config.rules import check_run
from common.config.run import Run
from common.errors import ConfigError, UnknownName
from server.run.folder import RunFolder
from simulations.comparison.beside import REQUESTED
from simulations.comparison.names import EXACT_RANDOM, FEDERATED, ON_NETWORK, RANDOM
from simulations.comparison.tuning import read_choice, tuned_overrides

AT_RANDOM = (RANDOM, EXACT_RANDOM)  # arms whose frozen model has random weights


@dataclass(frozen=True)
class Cell:
    """One fold and seed."""

    fold: int
    seed: int

    @property
    def name(self) -> str:
        """For folders."""
        return f"fold{self.fold}-seed{self.seed}"


@dataclass(frozen=True)
class Job:
    """One arm's work in one cell."""

    arm: str
    cell: Cell
    center: str | None = None  # local only: whose

    @property
    def name(self) -> str:
        """For folders."""
        return self.arm if self.center is None else f"{self.arm}-{self.center}"


@dataclass(frozen=True)
class Comparing:
    """A comparison's configuration and folder."""

    run: Run
    folder: Path
    overrides: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """Every fold with every seed."""
        return [Cell(f, s) for f, s in product(self.run.compare.folds, self.run.compare.seeds)]

    def arm_folder(self, arm: str, cell: Cell) -> RunFolder:
        """A federated arm's run folder."""
        return RunFolder(self.folder / "arms" / f"{arm.replace(' ', '-')}-{cell.name}")

    def records(self, job: Job) -> Path:
        """Where a job leaves its test patients' records."""
        return self.folder / "records" / job.cell.name / job.name

    def choice_path(self, arm: str, cell: Cell, center: str | None = None) -> Path:
        """Where an arm's tuned learning rates are: one choice per fold."""
        name = arm if center is None else f"{arm}-{center}"
        return self.folder / "tuning" / f"fold{cell.fold}" / f"{name.replace(' ', '-')}.json"

    @property
    def tunes(self) -> bool:
        """Whether there is anything to choose from."""
        return self.run.compare.learning_rates != [1.0]

    def untuned_overrides(self, arm: str, cell: Cell) -> tuple[str, ...]:
        """The command line of one arm of one cell before its learning rates are chosen; only one arm needs controls."""
        own = (f"data.split.fold={cell.fold}", f"seed={cell.seed}", f"with_controls={arm == FEDERATED}".lower())
        at_random = ("backbone.random_seed=0",) if arm in AT_RANDOM else ()
        return (*self.overrides, *own, *at_random, *(self._network() if arm in ON_NETWORK else ()))

    def _network(self) -> list[str]:
        """Every segmentation step with a U-Net from random weights, by the mean of updates; other steps rest."""
        found = []
        for name, step in self.run.steps.items():
            if name in self.run.controls:
                continue
            if step.task.kind != "segmentation":
                found.append(f"steps.{name}.rounds=0")
            elif step.rounds > 0 and step.federation.kind != "newton":
                found += [f"adapter@steps.{name}.adapter=unet", f"steps.{name}.train_parts=['*']"]
        return found

    def arm_overrides(self, arm: str, cell: Cell, center: str | None = None) -> tuple[str, ...]:
        """The command line that composes one arm of one cell, its tuned rates included."""
        untuned = self.untuned_overrides(arm, cell)
        choice = read_choice(self.choice_path(arm, cell, center))
        return (*untuned, *tuned_overrides(compose_run(untuned), choice)) if choice else untuned


def prepare(overrides: Sequence[str]) -> Comparing:
    """Compose and check a comparison."""
    run = compose_run([*overrides, "with_controls=true"])
    check_run(run)
    _check_grids(run)
    _check_bases(run)
    unknown = [word for word in run.compare.arms if word not in REQUESTED]
    if unknown:
        raise UnknownName("arm", unknown[0], REQUESTED, where="compare.arms")
    name = run.name if run.name != run.curriculum else f"compare-{run.curriculum}"
    return Comparing(run, Path(run.out) / name, tuple(overrides))


def _check_grids(run: Run) -> None:
    """Every arm of a comparison needs the same survival grid; quantiles would be chosen by each run anew."""
    for name, step in run.steps.items():
        if getattr(step.task, "grid", "equal") == "quantiles" and not step.task.cuts_days:
            raise ConfigError(
                f"Step '{name}' chooses its grid from the run's own centers, which a comparison's other arms cannot "
                f"follow: set steps.{name}.task.cuts_days to the cuts that one run wrote to its ledger (grid_chosen)."
            )


def _check_bases(run: Run) -> None:
    """An arm that trains without the federation would need a base of its own."""
    standing = [f"'{name}' on '{step.stands_on}'" for name, step in run.steps.items() if step.stands_on is not None]
    if standing:
        raise ConfigError(
            f"Steps stand on earlier steps ({', '.join(standing)}), and a comparison cannot yet give each arm a base "
            "of its own: run the curriculum by itself (python -m simulations run), or leave stands_on out."
        )


def composed(overrides: Sequence[str], folder: Path) -> Comparing:
    """A comparison of a command line, with the controls that only its arms need."""
    return Comparing(compose_run([*overrides, "with_controls=true"]), folder, tuple(overrides))


def records_name(step: str, mode: str = "") -> str:
    """File name of a step's records in one mode; the empty mode shows whatever a case has."""
    return f"{step}@{mode}.json" if mode else f"{step}.json"
