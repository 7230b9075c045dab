"""Results in pandas: what one run, many runs or a sweep found, as tidy tables.

from simulations.frames import results_frames

frames = results_frames("runs/smoke")  # or "runs", or a sweep's folder, or a list of them
pooled = frames.scores.query("center == 'pooled' and metric == 'dsc_agg'")
pooled.pivot_table(index="step", columns="seed", values="value")
frames.rounds.plot(x="round", y="validation")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from common.errors import DataError
from common.store.ledger import Ledger
from server.run.folder import RunFolder
from server.run.narration import mean_loss

SCORES = (
    "folder",
    "run",
    "arm",
    "fold",
    "seed",
    "step",
    "task",
    "mode",
    "metric",
    "center",
    "value",
    "low",
    "high",
    "n",
    "noise",
)
ROUNDS = (
    "folder", "run", "arm", "seed", "step", "round", "metric", "validation", "validation_loss", "train_loss", "centers",
    "seconds", "bytes_up", "bytes_down",
)  # fmt: skip
SWEEP = "sweep.json"
Row = dict[str, Any]


class Frames(NamedTuple):
    """Tidy tables; a sweep's varied options are columns of both, under their names on the command line.

    Args:
        scores: one row per run, arm, step after which was scored, task, mode, metric and center (``pooled``: all).
        rounds: one row per run, step and round: validation, loss (per case, of the centers together), bytes, seconds. A
            comparison's rounds have bytes only, by arm; its arms' own folders have the rest.
    """

    scores: pd.DataFrame
    rounds: pd.DataFrame


def results_frames(path: str | Path | Sequence[str | Path]) -> Frames:
    """The results of a results.json, of every run under a folder, or of several of these.

    Raises:
        DataError: there is no results.json.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    files = dict.fromkeys(file for one in paths for file in _results_files(one))
    if not files:
        raise DataError([f"No results.json in {', '.join(map(str, paths))}: a run writes it once it has finished."])
    varied = {Path(run["folder"]).resolve(): run["values"] for one in paths for run in _swept(one)}
    scores: list[Row] = []
    rounds: list[Row] = []
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        given = varied.get(file.parent.resolve(), {})
        scores += [{**row, **_new(given, SCORES)} for row in _scores(content, file.parent)]
        rounds += [{**row, **_new(given, ROUNDS)} for row in _rounds(content, file.parent)]
    return Frames(_frame(scores, SCORES), _frame(rounds, ROUNDS))


def _results_files(path: Path) -> list[Path]:
    if path.is_file() and path.name != SWEEP:
        return [path]
    swept = [RunFolder(Path(run["folder"])).results for run in _swept(path)]
    return [file for file in swept if file.exists()] or sorted(path.rglob("results.json"))


def _swept(path: Path) -> list[Row]:
    """A sweep's runs; none where the path is no sweep."""
    file = path if path.name == SWEEP else path / SWEEP
    return list(json.loads(file.read_text(encoding="utf-8"))["runs"]) if file.is_file() else []


def _new(given: Row, known: Iterable[str]) -> Row:
    return {key: _number(value) for key, value in given.items() if key not in known}


def _number(text: str) -> Any:
    """A swept value as a number where it is one."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _scores(content: Row, folder: Path) -> Iterator[Row]:
    run = content["run"]
    for row in content["scores"]:
        own = {"folder": str(folder), "run": run["name"], "arm": run.get("arm", ""), "seed": run["seed"]}
        yield {name: ({**own, **row}).get(name) for name in SCORES}


def _rounds(content: Row, folder: Path) -> Iterator[Row]:
    run = content["run"]
    found: dict[tuple[str, str, int], Row] = {}
    for sent in (row for row in content["communication"] if row["round"] > 0):
        arm = sent.get("arm", run.get("arm", ""))
        own = {"folder": str(folder), "run": run["name"], "arm": arm, "seed": run["seed"]}
        row = found.setdefault(
            (arm, sent["step"], sent["round"]),
            dict.fromkeys(ROUNDS) | own | {"bytes_up": 0, "bytes_down": 0},
        )
        row |= {"step": sent["step"], "round": sent["round"]}
        row["bytes_up"] += sent["bytes_up"]
        row["bytes_down"] += sent["bytes_down"]
    events = {(e["step"], e["round"]): e for e in Ledger(RunFolder(folder).ledger).events("round_finished")}
    for (_, step, number), row in found.items():
        yield row | _learned(events.get((step, number)))


def _learned(event: Row | None) -> Row:
    """What the ledger knows of a round; the last entry counts where a step was repeated."""
    if event is None:
        return {}
    validation, train = event.get("validation", {}), event.get("train", {})
    seconds = event.get("seconds") or {}
    return {
        "metric": validation.get("metric"),
        "validation": validation.get("pooled"),
        "validation_loss": validation.get("loss"),
        "train_loss": mean_loss(train.values()),
        "centers": len(train),
        "seconds": sum(seconds.values()) if isinstance(seconds, dict) else seconds,
    }


def _frame(rows: list[Row], columns: Sequence[str]) -> pd.DataFrame:
    more = dict.fromkeys(key for row in rows for key in row if key not in columns)
    frame = pd.DataFrame(rows, columns=[*columns, *more])
    numbers = [
        name
        for name in ("value", "low", "high", "noise", "validation", "validation_loss", "train_loss")
        if name in frame
    ]
    return frame.astype(dict.fromkeys(numbers, float))
