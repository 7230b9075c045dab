"""The report's words: title, three sentences, the key facts and the warnings, all derived from the run's record."""

from __future__ import annotations

import re

from server.evaluation.matrix import POOLED, columns, final_scores, summary
from server.report.figures import traffic_per_reply
from server.report.reading.record import RunRecord, StepRecord
from server.report.tables import Arm, exact, why_missing
from server.report.vaults import vaults_say
from server.report.words import (
    DASH,
    count,
    duration,
    listed,
    metric_name,
    number,
    plural,
    sentence,
    share,
    size,
    task_word,
)

ROUNDING = 1e-6  # the share of an update that an exact rule may seem to miss
ASKED = {"describe": "to describe its cases of", "sums": "for sums of", "evaluate": "for test scores of"}  # by action
_NUMBER = re.compile(r"\d[\d.]*(e[+-]?\d+)?")


def title(run: RunRecord) -> str:
    """``Seven centers, one frozen model, four trained steps``."""
    trained = [step for step in run.finished if step.rounds]
    if not trained:
        return f"Run {run.begun['run']}: no trained step yet"
    centers = sentence(plural(len(_training_centers(run)), "center"))
    return f"{centers}, one frozen model, {plural(len(trained), 'trained step')}"


def sentences(run: RunRecord) -> list[str]:
    """What ran, what came out, on which data: three sentences."""
    return [_what_ran(run), _what_came_out(run), _which_data(run)]


def tiles(run: RunRecord, arm: Arm) -> list[dict[str, str]]:
    """The key facts; each names what it was measured on."""
    found = [
        _bits_tile(run),
        _base_tile(run),
        _forgetting_tile(arm),
        _bytes_tile(run),
        _cases_tile(run),
        _time_tile(run),
    ]
    return [tile for tile in found if tile]


def warnings(run: RunRecord) -> list[str]:
    """Everything a reader must know before trusting a number, one sentence each."""
    found = [_integrity, _unfinished, _withdrawals, _refusals, _failures, _stopped, vaults_say, _rules, _gaps]
    return [sentence for told in found for sentence in told(run)]


def is_synthetic(run: RunRecord) -> bool | None:
    """None: the run did not say."""
    return run.begun.get("data", {}).get("synthetic")


def _training_centers(run: RunRecord) -> list[str]:
    return list(dict.fromkeys(center for step in run.steps if step.rounds for center in step.centers))


def _what_ran(run: RunRecord) -> str:
    trained = [task_word(step.name) for step in run.steps if step.rounds]
    codes = _training_centers(run)
    frozen = _frozen(run)
    if not trained:
        return f"No step has been trained yet on {frozen}."
    evaluated = [task_word(step.name) for step in run.finished if not step.rounds]
    also = f"; {listed(evaluated)} was only evaluated" if evaluated else ""
    who = f"{sentence(plural(len(codes), 'center'))} ({', '.join(codes)})"
    return f"{who} adapted {frozen} to {listed(trained)}, one after the other{also}."


def _frozen(run: RunRecord) -> str:
    backbone = run.begun.get("backbone", {})
    names = {"ct_clip": "CT-CLIP"}
    kind = names.get(str(backbone.get("kind")), str(backbone.get("kind", "model")))
    size_of = f", {backbone['parameters'] / 1e6:.3g} million parameters" if backbone.get("parameters") else ""
    return f"one frozen {kind} ({backbone.get('config', 'unnamed size')}{size_of})"


def _what_came_out(run: RunRecord) -> str:
    shown = columns(run.rows, run.metrics)
    finals = [(c, final_scores(run.rows, c).get(POOLED)) for c in shown]
    said = [
        f"{metric_name(c.metric)} {number(row['value'])} on {task_word(c.key)}"
        for c, row in finals
        if row and row["value"] is not None
    ]
    scores = (
        f"After the last step the pooled test scores are {listed(said)}" if said else "No pooled test score exists yet"
    )
    bits = run.changed_bits
    if bits is None:
        return f"{scores}; whether earlier steps still give the same outputs has not been verified."
    return (
        f"{scores}; a fresh process that rebuilt every finished step found {count(bits)} changed bits in its outputs."
    )


def _which_data(run: RunRecord) -> str:
    data, synthetic = run.begun.get("data", {}), is_synthetic(run)
    note = str(data.get("note") or "").rstrip(".")
    kind = {
        True: "All data are synthetic",
        False: "The data are real",
        None: "The run does not say whether its data are real",
    }[synthetic]
    folds = f", {run.folds} folds" if run.folds > 1 else ""
    return f"{kind}{folds} ({data.get('kind', 'unnamed')}){': ' + note if note else ''}."


def _bits_tile(run: RunRecord) -> dict[str, str]:
    bits = run.changed_bits
    if bits is None:
        return _tile(
            "Changed bits", DASH, "not verified: no fresh process has rebuilt the finished steps", tone="unknown"
        )
    steps = len((run.verified or {})["changed_bits"])
    where = f"in the outputs of {plural(steps, 'finished step')}, rebuilt from bank and base by a fresh process"
    return _tile("Changed bits", count(bits), where, tone="bad" if bits else "good")


def _base_tile(run: RunRecord) -> dict[str, str]:
    before = run.begun["base"]
    if run.verified is None:
        return _tile(
            "Frozen base", DASH, f"digest {before[:8]}… before the run; not read again after it", tone="unknown"
        )
    same = run.verified["base_after"] == before
    told = (
        f"digest {before[:8]}… before and after"
        if same
        else f"digest {before[:8]}… before, {run.verified['base_after'][:8]}… after"
    )
    return _tile("Frozen base", "unchanged" if same else "changed", told, tone="good" if same else "bad")


def _forgetting_tile(arm: Arm) -> dict[str, str]:
    tasks = summary(arm.rows, arm.metrics, learned=arm.learned)["tasks"]
    known = {key: t["forgetting"] for key, t in tasks.items() if t["forgetting"] is not None}
    if not known:
        return _tile("Forgetting", DASH, "no task has had a later step yet", tone="unknown")
    worst = max(known, key=lambda key: known[key])
    over = f"over {plural(len(known), 'task')} with later steps"
    told = f"largest drop of a pooled test score since its task was learned, {over}"
    where = f" ({task_word(worst)})" if known[worst] > 0 else ""
    return _tile("Forgetting", exact(known[worst]), told + where, tone="bad" if known[worst] > 0 else "good")


def _bytes_tile(run: RunRecord) -> dict[str, str] | None:
    sent = {step.name: found for step in run.steps if (found := traffic_per_reply(step))}
    if not sent:
        return None
    most = max(sent, key=lambda name: sent[name][0])
    whole = run.begun.get("backbone", {}).get("bytes")
    against = f": {share(sent[most][0], whole)} of the frozen model's {size(whole)}" if whole else ""
    return _tile(
        "Sent per round", size(sent[most][0]), f"by one center, in the largest step ({task_word(most)}){against}"
    )


def _cases_tile(run: RunRecord) -> dict[str, str] | None:
    most: dict[str, dict[str, int]] = {}
    for step in run.steps:
        for center, counts in step.started.get("counts", {}).items():
            best = most.setdefault(center, dict.fromkeys(("train", "validation", "test"), 0))
            most[center] = {name: max(best[name], counts.get(name) or 0) for name in best}
    if not most:
        return None
    train, validation, test = (sum(c[name] for c in most.values()) for name in ("train", "validation", "test"))
    told = f"{count(train)} train, {count(validation)} validation, {count(test)} test, at {plural(len(most), 'center')}"
    return _tile("Cases", count(train + validation + test), told)


def _time_tile(run: RunRecord) -> dict[str, str] | None:
    seconds = [r["seconds"] for step in run.steps for r in step.rounds if r.get("seconds")]
    total = sum(sum(s.values()) for s in seconds)
    if not total:
        return None
    beyond = sum(s.get("aggregate", 0.0) + s.get("overhead", 0.0) for s in seconds)
    return _tile("Rounds took", duration(total), f"{100 * beyond / total:.1f} % of it beyond training and validation")


def _tile(label: str, value: str, told: str, *, tone: str = "plain") -> dict[str, str]:
    return {"label": label, "value": value, "told": told, "tone": tone + (" long" if len(value) > 7 else "")}


def _integrity(run: RunRecord) -> list[str]:
    if run.verified is None:
        return ["The run has not been verified: changed bits and the base's digest after the run are unknown."]
    bits = {task_word(name): n for name, n in run.verified["changed_bits"].items() if n}
    found = [
        f"Outputs of {name} changed in {count(n)} bits when rebuilt: its adapter or the base has drifted."
        for name, n in bits.items()
    ]
    if run.verified["base_after"] != run.begun["base"]:
        found.append("The base's digest after the run differs from the one before: the frozen model was changed.")
    return found


def _unfinished(run: RunRecord) -> list[str]:
    names = [task_word(step.name) for step in run.steps if step.finished is None]
    return [f"Not finished when this was written: {listed(names)}."] if names else []


def _withdrawals(run: RunRecord) -> list[str]:
    """Who left, and what its leaving did to each step."""
    done = {
        "subtracted": "its sums were subtracted from {}",
        "refit": "{} is fitted without it",
        "trained": "{} was trained with it by averaging, which cannot be undone",
    }
    return [
        f"{center} has left the run: {listed([done[how].format(task_word(step)) for step, how in steps.items()])}."
        + _replaced_scores(run, center)
        for center, steps in run.withdrawn.items()
    ]


def _replaced_scores(run: RunRecord, center: str) -> str:
    tasks = list(dict.fromkeys(task_word(row["task"]) for row in run.superseded if center in row["without"]))
    if not tasks:
        return ""
    return f" Scores of {listed(tasks)} from before are superseded; they stand in the ledger and in results.json only."


def _refusals(run: RunRecord) -> list[str]:
    return [
        f"{center} took no part in {task_word(step.name)}: {reason}."
        for step in run.steps
        for center, reason in step.started.get("refused", {}).items()
    ]


def _failures(run: RunRecord) -> list[str]:
    return [
        f"{center} gave no usable reply in round {r['round']} of {task_word(step.name)} (code '{code}')."
        for step in run.steps
        for r in step.rounds
        for center, code in r.get("failed", {}).items()
    ]


def _stopped(run: RunRecord) -> list[str]:
    """Answers that are no round's and that the guards stopped, each sentence once; whom an exact fit lost."""
    found: list[str] = []
    for event in run.rejected:
        task = task_word(event["step"])
        if event["kind"] == "reply_rejected":
            why = f": {event['told']}" if event.get("told") else ""
            found.append(
                f"{event['center']}, asked {ASKED[event['action']]} {task}, gave an answer that was stopped, code "
                f"'{event['code']}'{why}."
            )
        else:
            found += [
                f"The exact fit of {task} went on without {center} (code '{code}')."
                for center, code in event["centers"].items()
            ]
    return list(dict.fromkeys(found))


def _rules(run: RunRecord) -> list[str]:
    """What aggregation rules said of their own work, once for each step, and what secure sums leave unguarded."""
    return (
        _masks(run)
        + _noised_scores(run)
        + [told for step in run.steps for told in [*_rule_notes(step), *_missed(step)]]
    )


def _masks(run: RunRecord) -> list[str]:
    """Which guards a secure sum leaves nothing to look at, once for each step."""
    found = []
    for step in run.steps:
        told = [event["secure_sum"] for event in step.rounds if event.get("secure_sum")]
        if told:
            fewest = min(one["centers"] for one in told)
            found.append(
                f"Updates, losses and scores of {task_word(step.name)} were opened as sums of {fewest} centers "
                f"or more, never one by one; off because of it: {listed(told[0]['guards_off'])}."
            )
        asked = [event["secure_sum"] for event in step.questions if event.get("secure_sum")]
        if asked:
            found.append(
                f"{sentence(task_word(step.name))} was fitted exactly on secure sums of {len(asked[0]['of'])} centers; "
                f"off because of it: {listed(asked[0]['guards_off'])}."
            )
    return found


def _noised_scores(run: RunRecord) -> list[str]:
    """Whose scores carry noise, with the largest standard deviation of a pooled one, once for each task."""
    found = []
    for task in dict.fromkeys(row["task"] for row in run.rows):
        noise = [row["noise"] for row in run.rows if row["task"] == task and row["center"] == POOLED and "noise" in row]
        if noise:
            found.append(
                f"Scores of {task_word(task)} carry noise for its patients' privacy: pooled ones have a standard "
                f"deviation of up to {max(noise):.3f} by noise alone. A score that noise would hide is left out, and "
                "so is how many patients it is over."
            )
    return found


def _rule_notes(step: StepRecord) -> list[str]:
    """Notes that differ in nothing but numbers are one: the first round's stands for the later ones."""
    told: dict[str, list[tuple[int, str]]] = {}
    for event in step.rounds:
        for note in (event.get("aggregation") or {}).get("notes", []):
            told.setdefault(_NUMBER.sub("", note), []).append((event["round"], note))
    return [f"Aggregation of {task_word(step.name)}, {_when(said)}: {said[0][1]}" for said in told.values()]


def _when(said: list[tuple[int, str]]) -> str:
    later = f", and in {plural(len(said) - 1, 'later round')}" if len(said) > 1 else ""
    return f"round {said[0][0]}{later}"


def _missed(step: StepRecord) -> list[str]:
    """The most that the rule of each part did not hold of a round's update."""
    worst: dict[str, tuple[float, int]] = {}
    for event in step.rounds:
        for name, value in (event.get("aggregation") or {}).items():
            part, _, what = name.rpartition(".")
            if what == "missed" and value > max(ROUNDING, worst.get(part, (0.0, 0))[0]):
                worst[part] = (value, event["round"])
    return [
        f"Aggregation of {task_word(step.name)} missed up to {100 * value:.2g} % of a round's update of part '{part}' "
        f"(round {number})."
        for part, (value, number) in worst.items()
    ]


def _gaps(run: RunRecord) -> list[str]:
    """Scores after the last step that are missing, by reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for column in columns(run.rows, run.metrics):
        for center, row in final_scores(run.rows, column).items():
            if row["value"] is None:
                found.setdefault((task_word(column.key), why_missing(row)), []).append(center)
    return [f"{sentence(task)}: no score for {listed(codes)} ({why})." for (task, why), codes in found.items()]
