"""The run's own bad news, in words and by rule: nobody has to find it in a table, and nobody may leave it out.

Each rule of `RULES` reads the same evidence and gives sentences; what none of them says is not hidden, it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import LedgerError
from common.metrics import LOWER_IS_BETTER
from common.metrics.names import chance
from server.evaluation.matrix import POOLED, START, Column, Row, columns, final_scores, score_matrix, summary
from server.report.reading.record import RunRecord
from server.report.survival import RiskGroups, risk_groups
from server.report.tables import Arm, Comparison, exact, why_missing
from server.report.words import count, listed, metric_name, number, sentence

FEWEST = 10  # test cases; a score over fewer is an anecdote
CEILING = "centralized"  # the one arm that is not simpler than a federation: it has all data in one place
NOTHING = 0.05  # of a metric that is 0 where nothing is found: below it there is no answer to speak of
FOUND_NOTHING = {  # by such a metric's name: of all of it, and of one structure or source
    "Dice": ("next to nothing of what was drawn is found", "next to nothing of {} is found"),
    "aggregated Dice": ("next to nothing of what was drawn is found", "next to nothing of {} is found"),
    "AP": ("hardly any box lies where something was drawn", "hardly any box lies where {} was drawn"),
    "restored share": ("next to nothing of what was hidden is restored", "next to nothing of {} is restored"),
}
UNCLEAR = 0.05  # p of a log-rank test above which two groups are not told apart


@dataclass(frozen=True)
class News:
    """One sentence of bad news; ``task`` is the column's key, empty where it is about the whole run."""

    rule: str
    task: str
    text: str

    def row(self) -> dict[str, str]:
        """As results.json holds it."""
        return {"rule": self.rule, "task": self.task, "text": self.text}


@dataclass
class Evidence:
    """What the rules read.

    Args:
        arm: the run's scores.
        comparisons: paired differences of this run minus another arm.
        patients: score rows with intervals over patients, where one process saw them; they go before summed ones.
    """

    run: RunRecord
    arm: Arm
    comparisons: Sequence[Comparison] = ()
    patients: Sequence[Row] = ()
    columns: list[Column] = field(init=False)
    finals: dict[str, dict[str, Row]] = field(init=False)

    def __post_init__(self) -> None:
        self.columns = columns(self.arm.rows, self.arm.metrics)
        self.finals = {column.key: final_scores(self.arm.rows, column) for column in self.columns}

    def pooled(self, column: Column) -> Row | None:
        """The task's score over all centers after the last step, with an interval where there is one."""
        own = (column.task, column.metric, POOLED, column.mode)
        for row in self.patients:
            if (row["task"], row["metric"], row["center"], row.get("mode") or "") == own:
                return row
        return self.finals[column.key].get(POOLED)


Rule = Callable[[Evidence], Iterator[tuple[str, str]]]  # (task, sentence)


def bad_news(evidence: Evidence) -> list[News]:
    """What every rule says, in the order of `RULES`."""
    return [News(name, task, text) for name, rule in RULES.items() for task, text in rule(evidence)]


def _drift(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Verification failed, or was never made."""
    run = evidence.run
    if run.verified is None and run.finished:
        yield "", "Not verified: nobody has checked that earlier steps still give the same outputs."
    elif run.verified is not None:
        if run.changed_bits:
            yield "", f"Something drifted: {count(run.changed_bits)} bits of earlier outputs changed."
        if run.verified["base_after"] != run.begun["base"]:
            yield "", "The frozen model is not the one that the run began with."


def _no_score(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """A task without a pooled score, and why."""
    for column in evidence.columns:
        row = evidence.pooled(column)
        if row is not None and row["value"] is None:
            why = "" if row.get("missing") else f" ({why_missing(row)})"
            yield column.key, f"There is no score over all centers{why}."


def _guessing(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """A score, or its interval, that guessing reaches too."""
    for column, row in _scored(evidence):
        name = metric_name(column.metric)
        chance, low, high = _chance(evidence.run, column), row.get("low"), row.get("high")
        if chance is None:
            continue
        told = f"{name} {number(row['value'])}"
        if low is None or high is None:
            if row["value"] <= chance:
                yield column.key, f"{told} is no better than guessing ({chance:g})."
            continue
        between = f"{told} [{number(low)}, {number(high)}]"
        if high < chance:
            yield column.key, f"{between} is worse than guessing ({chance:g}): the whole interval lies below."
        elif low <= chance:
            said = f"{between}: the interval includes guessing ({chance:g}), so nothing is shown to be learned."
            yield column.key, said


def _nothing_found(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """A score that an empty answer nearly has, too: of an outline, of boxes, of what a stage restores."""
    for column, row in _scored(evidence):
        name = metric_name(column.metric)
        if name in FOUND_NOTHING and row["value"] < NOTHING:
            yield column.key, f"{name} {number(row['value'])}: {FOUND_NOTHING[name][0]}."


def _structure_missed(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """A structure (or a stage's source) that is next to never found, behind a mean over them that hides it."""
    for column, row in _scored(evidence):
        name = metric_name(column.metric)
        if name not in FOUND_NOTHING or row["value"] < NOTHING:
            continue
        for metric, value in _by_structure(evidence, column).items():
            if value is not None and value < NOTHING:
                said = FOUND_NOTHING[name][1].format(metric.removeprefix(f"{column.metric}_"))
                yield column.key, f"{sentence(said)} ({name} {number(value)})."


def _by_structure(evidence: Evidence, column: Column) -> dict[str, float | None]:
    """Metric -> pooled value after the last step, of the column's metric by structure."""
    own, other = f"{column.metric}_", f"{column.metric}_ceiling"
    rows = [row for row in evidence.arm.rows if row["task"] == column.task and row["center"] == POOLED]
    metrics = dict.fromkeys(r["metric"] for r in rows if r["metric"].startswith(own))
    last = {m: final_scores(rows, replace(column, metric=m)) for m in metrics if not m.startswith(other)}
    return {metric: found[POOLED]["value"] for metric, found in last.items() if POOLED in found}


def _few_cases(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Fewer than ten test cases, over all centers or at some."""
    for column, row in _scored(evidence):
        if row["n"] is not None and row["n"] < FEWEST:
            yield column.key, f"Tested on {count(row['n'])} cases: fewer than ten say next to nothing."
            continue
        at = evidence.finals[column.key]
        few = {c: r["n"] for c, r in at.items() if c != POOLED and r["value"] is not None and (r["n"] or 0) < FEWEST}
        if few:
            named = listed([f"{center} ({count(n)})" for center, n in few.items()])
            yield column.key, f"Fewer than ten test cases at {named}: what is said of one center there means little."


def _missing_centers(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Centers that the pooled score should hold and does not."""
    for column in evidence.columns:
        row = evidence.finals[column.key].get(POOLED)
        if row is not None and row.get("missing"):
            yield column.key, f"The score is not over all centers: {listed(row['missing'])} did not answer."


def _worse_than_start(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """A trained step whose test score is below its own start's, or that kept its start."""
    matrix = score_matrix(evidence.arm.rows, evidence.arm.metrics)
    trained = {step.task: step for step in evidence.run.finished if step.rounds}
    for column in evidence.columns:
        home = evidence.arm.learned.get(column.key)
        step = trained.get(column.task)
        if step is None or home not in matrix:
            continue
        before, after = matrix.get(START, {}).get(column.key), matrix[home][column.key]
        if before is not None and after is not None and _sign(column) * (after - before) < 0:
            name = metric_name(column.metric)
            said = f"{name} {number(after)} after the step, {number(before)} before it"
            yield column.key, f"Training made the test score worse: {said}."
        if (step.finished or {}).get("kept_round") == 0:
            yield column.key, "No round was better than the start in validation: the step learned nothing and kept it."


def _forgotten(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """A later step took something away."""
    tasks = summary(evidence.arm.rows, evidence.arm.metrics, learned=evidence.arm.learned)["tasks"]
    for key, found in tasks.items():
        if (found["forgetting"] or 0) > 0:
            yield key, f"It was better once: {exact(found['forgetting'])} was lost to later steps."


def _reversed_groups(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Predicted risk that runs against what happened, or does not part the patients."""
    for task, groups in _groups(evidence.run):
        low, high, expected = *_events(groups), _expected_in_high(evidence.run.curves[task])
        if low + high and high < expected:
            said = f"{count(high)} relapses where high risk was predicted, {number(expected, 1)} expected by chance"
            yield task, f"The risk groups are reversed: {said}."
        elif groups.p is not None and groups.p > UNCLEAR:
            yield task, f"High and low predicted risk are not told apart (log-rank p = {groups.p:.2f})."


def _simpler_is_better(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """An arm that needs less than this run and scores higher."""
    better: dict[tuple[str, str, str], list[str]] = {}
    for item in evidence.comparisons:
        found = item.gain
        simpler = item.b != CEILING and " at " not in item.a
        if not simpler or found.value is None or found.value >= 0:
            continue
        sure = "no interval" if not found.interval else f"the interval {'ex' if found.is_below_zero else 'in'}cludes 0"
        by = f"{metric_name(item.metric)} by {number(abs(found.value))} ({sure})"
        better.setdefault((item.task, item.a, item.b), []).append(by)
    for (task, a, b), said in better.items():
        yield task, f"{sentence(b)} is better than {a}: {', '.join(said)}."


def _harmed(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Centers that would be better off alone."""
    for item in evidence.comparisons:
        if item.note == "harmed":
            by = f"{metric_name(item.metric)} {item.difference.text(signed=True)}"
            yield item.task, f"{sentence(item.a)} is worse off than alone: {by}."


RULES: dict[str, Rule] = {
    "drift": _drift,
    "no_score": _no_score,
    "guessing": _guessing,
    "nothing_found": _nothing_found,
    "structure_missed": _structure_missed,
    "worse_than_start": _worse_than_start,
    "reversed_groups": _reversed_groups,
    "simpler_is_better": _simpler_is_better,
    "harmed": _harmed,
    "forgotten": _forgotten,
    "missing_centers": _missing_centers,
    "few_cases": _few_cases,
}


def _scored(evidence: Evidence) -> Iterator[tuple[Column, Row]]:
    for column in evidence.columns:
        row = evidence.pooled(column)
        if row is not None and row["value"] is not None:
            yield column, row


def _chance(run: RunRecord, column: Column) -> float | None:
    """What guessing reaches; of a balanced accuracy one over the classes, where the run says how many there are."""
    if column.metric != "balanced_accuracy":
        return chance(column.metric)
    classes = next((step.plan.get("classes") for step in run.steps if step.task == column.task), None)
    return 1 / max(classes, 2) if classes else None


def _sign(column: Column) -> int:
    return -1 if column.metric in LOWER_IS_BETTER else 1


def _groups(run: RunRecord) -> Iterator[tuple[str, RiskGroups]]:
    for task, counts in run.curves.items():
        if "at_risk" in counts:
            try:
                yield task, risk_groups(counts)
            except LedgerError:
                continue  # suppressed: the page says so where the curves would stand


def _events(groups: RiskGroups) -> tuple[int, int]:
    return groups.low.events, groups.high.events


def _expected_in_high(counts: Mapping[str, Any]) -> float:
    """Events that the high-risk group would have if the groups did not differ (as the log-rank test counts)."""
    (n_low, n_high), (d_low, d_high) = counts["at_risk"], counts["events"]
    rows = zip(n_low, n_high, d_low, d_high, strict=True)
    return float(sum((d0 + d1) * n1 / (n0 + n1) for n0, n1, d0, d1 in rows if n0 + n1))
