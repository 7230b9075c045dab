"""The score matrix R[step][task] and what is read off it: average, transfer, forgetting and the worst center.

A row is one score as ledger and results.json hold it, ``{"step", "task", "metric", "center", "mode", "value", "n"}``,
optionally with ``fold`` and ``seed``. Step ``start`` is before any training (row 0); center ``pooled`` is over all
centers; a value of None is suppressed, undefined or not yet learned, and stays None in everything derived from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from common.errors import LedgerError
from common.metrics import LOWER_IS_BETTER

START = "start"
POOLED = "pooled"


Row = Mapping[str, Any]
Matrix = dict[str, dict[str, float | None]]  # step -> column key -> value


@dataclass(frozen=True)
class Column:
    """One column of the matrix: a task seen through one set of modalities, judged by its primary metric.

    ``key`` is the task's own name for its fullest mode, and ``task (mode)`` for the others.
    """

    key: str
    task: str
    metric: str
    mode: str


def steps_of(rows: Iterable[Row]) -> list[str]:
    """The steps in the order in which they were finished; ``start`` first where it was scored."""
    seen = dict.fromkeys(row["step"] for row in rows)
    return ([START] if START in seen else []) + [step for step in seen if step != START]


def columns(rows: Sequence[Row], metrics: Mapping[str, str]) -> list[Column]:
    """Columns of the matrix, in the order in which tasks first appear in ``metrics``."""
    found: list[Column] = []
    for task, metric in metrics.items():
        modes = list(dict.fromkeys(_mode(r) for r in rows if r["task"] == task and r["metric"] == metric)) or [""]
        fullest = max(reversed(modes), key=lambda mode: len(mode.split("+")))
        for mode in modes:
            found.append(Column(task if mode == fullest else f"{task} ({mode})", task, metric, mode))
    return found


def score_matrix(rows: Sequence[Row], metrics: Mapping[str, str], *, center: str = POOLED) -> Matrix:
    """R[step][task] of one center.

    Args:
        rows: scores of one arm. Folds and seeds of the same cell are averaged.
        metrics: task -> its primary metric.
        center: a center's code, or ``pooled``.

    Raises:
        LedgerError: when one cell has two scores that no fold or seed tells apart.
    """
    return {
        step: {
            column.key: _cell([r for r in rows if _is_at(r, column, step=step, center=center)])
            for column in columns(rows, metrics)
        }
        for step in steps_of(rows)
    }


def centers_of(rows: Iterable[Row]) -> list[str]:
    """Center codes in order of first appearance, without ``pooled``."""
    return [center for center in dict.fromkeys(row["center"] for row in rows) if center != POOLED]


def summary(
    rows: Sequence[Row], metrics: Mapping[str, str], *, learned: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the matrix says after the last step T, per task and as means over the tasks (FACTS F3).

    average = R[T][j]; bwt = R[T][j] - R[j][j] for tasks learned before T; forgetting = max over j <= i < T of R[i][j],
    minus R[T][j] (rows before the task was learned do not count: what was never learned cannot be forgotten);
    fwt = R[j-1][j] - R[0][j], None for a head that did not exist before its own step. With a metric of which less is
    better, signs are turned so that a positive bwt is a gain and a positive forgetting is a loss.

    Args:
        rows: scores of one arm.
        metrics: task -> its primary metric.
        learned: column key -> the step that learned it; default: the first step that has a score for it.

    Returns:
        ``{"tasks": {key: {"metric", "mode", "learned", "average", "bwt", "forgetting", "fwt", "worst_center", "worst",
        "center_mean"}}, "average", "bwt", "forgetting", "fwt"}``; the four means skip tasks without a value.
    """
    matrix = score_matrix(rows, metrics)
    steps = list(matrix)
    tasks = {}
    for column in columns(rows, metrics):
        values = [matrix[step][column.key] for step in steps]
        home = (learned or {}).get(column.key) or _first_scored(steps, values)
        known = {"metric": column.metric, "mode": column.mode, "learned": home}
        tasks[column.key] = known | _transfer(steps, values, home, sign=_sign(column.metric)) | _by_center(rows, column)
    means = {name: _mean([task[name] for task in tasks.values()]) for name in ("average", "bwt", "forgetting", "fwt")}
    return {"tasks": tasks, **means}


def final_scores(rows: Sequence[Row], column: Column) -> dict[str, Row]:
    """Center -> its row of this column after the last step that scored the column; ``pooled`` included."""
    mine = [r for r in rows if r["task"] == column.task and r["metric"] == column.metric and _mode(r) == column.mode]
    last = steps_of(mine)[-1:]
    by_center: dict[str, list[Row]] = {}
    for row in mine:
        if row["step"] in last:
            by_center.setdefault(row["center"], []).append(row)
    return {center: _merged(found) for center, found in by_center.items()}


def with_intervals(rows: Sequence[Row], patients: Sequence[Row]) -> list[Row]:
    """The rows with intervals over patients, where one process saw the patients: of the same score, its value included,
    so that no interval stands beside a number that it does not belong to."""
    known = {_place(row): row for row in patients if row.get("low") is not None}
    found = []
    for row in rows:
        own = known.get(_place(row))
        is_its = own is not None and _is_same(row["value"], own["value"])
        found.append({**row, "low": own["low"], "high": own["high"]} if own is not None and is_its else row)
    return found


def as_it_stands(patients: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Scores over patients that are the run's last ones: without those of a task, mode and center where a score from
    sums says otherwise, because a later step changed the task or a center's cells were too small to be told."""
    last = {_place(row): row["value"] for row in rows}
    told = [row for row in patients if _place(row) in last]
    changed = {_whose(row) for row in told if not _is_same(last[_place(row)], row["value"])}
    return [row for row in patients if _whose(row) not in changed]


def without_counterpart(patients: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Scores that only the patients themselves can tell: no row of sums is of that task, metric and mode."""
    summed = {_place(row)[:-1] for row in rows}
    return [row for row in patients if _place(row)[:-1] not in summed]


def worst_center(rows: Sequence[Row], column: Column) -> tuple[str | None, float | None]:
    """The center with the worst score after the last step, and that score, of those that the pooled row is over."""
    sign = _sign(column.metric)
    scored = {c: r["value"] for c, r in _pooled_centers(rows, column).items() if r["value"] is not None}
    if not scored:
        return None, None
    worst = min(scored, key=lambda center: (sign * scored[center], center))
    return worst, scored[worst]


def _transfer(steps: list[str], values: list[float | None], home: str | None, *, sign: int) -> dict[str, float | None]:
    """One column's average, bwt, forgetting and fwt; ``steps`` has ``start`` at index 0 where it was scored."""
    last = len(steps) - 1
    final = values[last] if values else None
    learned = steps.index(home) if home in steps else last
    earlier = [v for v in values[learned:last] if v is not None]
    at_home = values[learned] if learned < last else None
    before = values[learned - 1] if learned > 1 else None
    start = values[0] if steps[:1] == [START] else None
    return {
        "average": final,
        "bwt": None if final is None or at_home is None else sign * (final - at_home),
        "forgetting": None if final is None or not earlier else max(sign * v for v in earlier) - sign * final,
        "fwt": None if before is None or start is None else sign * (before - start),
    }


def _by_center(rows: Sequence[Row], column: Column) -> dict[str, Any]:
    center, value = worst_center(rows, column)
    scored = [row["value"] for row in _pooled_centers(rows, column).values()]
    return {"worst_center": center, "worst": value, "center_mean": _mean(scored)}


def _pooled_centers(rows: Sequence[Row], column: Column) -> dict[str, Row]:
    """The final rows of the centers that the pooled row is over: without those that joined later."""
    return {c: row for c, row in final_scores(rows, column).items() if c != POOLED and not row.get("joined")}


def _is_at(row: Row, column: Column, *, step: str, center: str) -> bool:
    where = (row["step"], row["task"], row["metric"], row["center"], _mode(row))
    return where == (step, column.task, column.metric, center, column.mode)


def _cell(found: list[Row]) -> float | None:
    return _merged(found)["value"] if found else None


def _merged(found: list[Row]) -> Row:
    """One row from the folds and seeds of a cell: the mean value and the sum of n."""
    if len(found) == 1:
        return found[0]
    if len({(row.get("fold"), row.get("seed")) for row in found}) < len(found):
        row = found[0]
        raise LedgerError(
            f"Two scores for step '{row['step']}', task '{row['task']}', metric '{row['metric']}', center "
            f"'{row['center']}', mode '{_mode(row)}', with the same fold and seed. Give each lineage its own task key."
        )
    counts = [row["n"] for row in found if row["n"] is not None]
    bare = {name: value for name, value in found[0].items() if name not in ("low", "high")}
    return bare | {"value": _mean([row["value"] for row in found]), "n": sum(counts) if counts else None}


def _first_scored(steps: list[str], values: list[float | None]) -> str | None:
    return next((s for s, v in zip(steps, values, strict=True) if s != START and v is not None), None)


def _place(row: Row) -> tuple[str, str, str, str]:
    return row["task"], row["metric"], _mode(row), row["center"]


def _whose(row: Row) -> tuple[str, str, str]:
    return row["task"], _mode(row), row["center"]


def _is_same(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else math.isclose(a, b, abs_tol=1e-9)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mode(row: Row) -> str:
    return row.get("mode") or ""


def _sign(metric: str) -> int:
    return -1 if metric in LOWER_IS_BETTER else 1
