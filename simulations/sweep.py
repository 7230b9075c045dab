"""Sweeps: a command line with comma lists is one run a combination, each in a folder of its own, and one table.

``seed=1,2 steps.tumour_ct.lr=1e-3,3e-3`` makes four runs. What Hydra's grammar calls a sweep is one (comma lists,
``choice(...)``, ``range(...)``), with or without ``--multirun``; a value in brackets stays a list. A finished run is
not repeated: the sweep's folder remembers with which resolved configuration it was made.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from common.config.load import compose_run, run_to_yaml
from common.config.rules import broken_rules
from common.config.run import Run
from common.errors import ConfigError, FedgraftError

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("arm", "task", "metric", "value", "worst_center", "worst")
Perform = Callable[[Sequence[str]], Path]


@dataclass
class Point:
    """One combination.

    Args:
        values: option -> value, of the options that vary.
        overrides: the command line that repeats the run by itself.
        resolved: SHA-256 of its resolved configuration.
        folder: of the run; empty before it has finished.
    """

    name: str
    values: dict[str, Any]
    overrides: list[str]
    resolved: str = ""
    folder: str = ""
    problem: str = ""
    scores: list[dict[str, Any]] = field(default_factory=list)


def varied(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Option -> its values, for every option with several; empty for a command line that is one run."""
    return {_key(parsed): _values(parsed) for parsed in _parsed(overrides) if parsed.is_sweep_override()}


def points_of(overrides: Sequence[str], *, name: str) -> list[Point]:
    """Every combination, the last option varying fastest.

    Args:
        name: what each run's name begins with.
    """
    parsed = _parsed(overrides)
    fixed = [str(p.input_line) for p in parsed if not p.is_sweep_override() and _key(p) != "name"]
    several = varied(overrides)
    points = []
    for values in product(*several.values()):
        chosen = dict(zip(several, values, strict=True))
        own = f"{name}-{_label(chosen)}"
        points.append(Point(own, chosen, [*fixed, *(f"{key}={value}" for key, value in chosen.items()), f"name={own}"]))
    repeated = {p.name for p in points if [q.name for q in points].count(p.name) > 1}
    if repeated:
        raise ConfigError(f"The sweep has combinations of one name, {sorted(repeated)}: give each value once.")
    return points


def sweep(
    overrides: Sequence[str], perform: Perform, *, name: str, folder: Path, say: Callable[[str], None] = print
) -> list[Point]:
    """Run or continue every combination; the points with their scores.

    Every combination is composed and checked before the first one runs; one that fails later is said, the others go on.

    Args:
        perform: runs a command line and returns the run's folder.
        folder: where sweep.json and sweep.csv go.
    """
    points = points_of(overrides, name=name)
    _check(points)
    before = {run["name"]: run for run in _stored(folder)}
    for number, point in enumerate(points, start=1):
        old = before.get(point.name, {})
        if old.get("folder") and old["resolved"] == point.resolved and Path(old["folder"]).exists():
            say(f"{number} of {len(points)}: {point.name} has finished before")
            point.folder = old["folder"]
        else:
            say(f"{number} of {len(points)}: {point.name}")
            try:
                point.folder = str(perform(point.overrides))
            except FedgraftError as error:
                point.problem = str(error)
                say(f"{point.name}: {error}")
        point.scores = _scores(point)
        _write(folder, points)
    return points


def run_sweep(overrides: Sequence[str], *, command: str) -> tuple[Path, list[Point]]:
    """A sweep of `simulations run` or `simulations compare` where runs are kept: its own folder and its points."""
    perform = {"run": _simulate, "compare": _compare}[command]
    first = [o for o in points_of(overrides, name="run")[0].overrides if not o.startswith("name=")]
    given = [o for o in overrides if o.startswith("name=")]
    run = compose_run([*first, *given])
    name = _name(run, command=command)
    folder = Path(run.out) / f"{name}-sweep"
    return folder, sweep(overrides, perform, name=name, folder=folder)


def _name(run: Run, *, command: str) -> str:
    """What the runs' names begin with: what a single run's folder would be called."""
    if run.name != run.curriculum or command == "run":
        return run.name
    return f"study-{run.study.kind}" if run.study is not None else f"compare-{run.curriculum}"


def _simulate(overrides: Sequence[str]) -> Path:
    from simulations.simulate import simulate

    return simulate(overrides).path


def _compare(overrides: Sequence[str]) -> Path:
    from simulations.comparison.page import compare
    from simulations.studies.run import run_study, study_folder

    run = compose_run(overrides)
    if run.study is None:
        return compare(overrides)[0].path
    run_study(run, overrides, folder=study_folder(run))
    return study_folder(run)


def sweep_table(points: Sequence[Point]) -> Table:
    """One line per combination, arm and task: the pooled score after the last step."""
    from rich.table import Table

    table = Table(title=f"{len(points)} runs")
    options = list(points[0].values)
    for heading in (*options, *COLUMNS):
        table.add_column(heading, justify="right" if heading in ("value", "worst") else "left")
    for point in points:
        rows: list[dict[str, Any]] = point.scores or [{"task": point.problem or f"see {point.folder}"}]
        for row in rows:
            cells = [point.values[key] for key in options] + [row.get(name) for name in COLUMNS]
            table.add_row(*(f"{c:.3f}" if isinstance(c, float) else "" if c is None else str(c) for c in cells))
        table.add_section()
    return table


# ----------------------------------------------------------------------------------------------------- the combinations


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return list(OverridesParser.create().parse_overrides(overrides=list(overrides)))
    except HydraException as error:
        raise ConfigError(f"The command line cannot be read: {' '.join(str(error).split())}") from error


def _key(parsed: Override) -> str:
    return str(parsed.get_key_element())


def _values(parsed: Override) -> list[str]:
    if not (parsed.is_choice_sweep() or parsed.is_range_sweep()):
        raise ConfigError(f"'{parsed.input_line}' is no list of values; write them with commas, as seed=1,2.")
    return list(parsed.sweep_string_iterator())


def _label(chosen: dict[str, str]) -> str:
    """Values after as much of each option's path as tells it from the others, in characters that files may have."""
    ends = {key: re.split(r"[.@]", key) for key in chosen}
    words = []
    for key, value in chosen.items():
        n = next(n for n in range(1, 99) if sum(e[-n:] == ends[key][-n:] for e in ends.values()) == 1)
        words.append(f"{'.'.join(ends[key][-n:])}_{value}")
    return "-".join(re.sub(r"[^\w.+-]+", "_", word).strip("_") for word in words)


def _check(points: Sequence[Point]) -> None:
    problems: list[str] = []
    for point in points:
        try:
            run = compose_run(point.overrides)
        except ConfigError as error:
            problems.append(f"{point.name}: {error}")
            continue
        point.resolved = hashlib.sha256(run_to_yaml(run).encode()).hexdigest()
        problems += [] if run.study is not None else [f"{point.name}: {problem}" for problem in broken_rules(run)]
    if problems:
        raise ConfigError("\n".join(problems))


# ------------------------------------------------------------------------------------------------------------ its files


def _stored(folder: Path) -> list[dict[str, Any]]:
    path = folder / "sweep.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["runs"]) if path.exists() else []


def _scores(point: Point) -> list[dict[str, Any]]:
    path = Path(point.folder) / "results.json"
    if not point.folder or not path.exists():  # a study has tables of its own
        return []
    return list(_summarized(json.loads(path.read_text(encoding="utf-8"))))


def _summarized(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for arm, summary in results["summary"].items():
        for task, found in summary["tasks"].items():
            named = {"arm": arm, "task": task, "value": found.get("average")}
            yield named | {name: found.get(name) for name in ("metric", "worst_center", "worst")}


def _write(folder: Path, points: Sequence[Point]) -> None:
    from common.files import write_json  # brings torch, which a typo's answer need not wait for

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", {"format": 1, "runs": [asdict(point) for point in points]})
    with (folder / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["run", *points[0].values, *COLUMNS])
        table.writeheader()
        for point in points:
            table.writerows({"run": point.name, **point.values, **row} for row in point.scores)
