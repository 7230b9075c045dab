"""What a report says of hospitals' vaults and disks: who went on afresh, who was ahead, which rounds were short."""

from __future__ import annotations

from server.centers.stopped import short_of_disks
from server.report.reading.record import RunRecord, StepRecord
from server.report.words import listed, sentence, task_word


def vaults_say(run: RunRecord) -> list[str]:
    """Everything that a reader must know of them, one sentence each."""
    return [told for step in run.steps for told in [*_afresh(step), *_ahead(step), *_short(step)]]


def _afresh(step: StepRecord) -> list[str]:
    rounds = _rounds_with(step, "afresh")
    return [
        f"{center} went on afresh in {_in_rounds(numbers)} of {task_word(step.name)}: its vault had lost what earlier "
        "rounds left there, and the hospital accepted that, so these are not the bits of an undisturbed run."
        for center, numbers in rounds.items()
    ]


def _ahead(step: StepRecord) -> list[str]:
    rounds = _rounds_with(step, "ahead")
    return [
        f"{center}'s vault was ahead of the ledger in {_in_rounds(numbers)} of {task_word(step.name)}: it had trained "
        "later rounds already, so the ledger was rolled back, and these rounds were trained again."
        for center, numbers in rounds.items()
    ]


def _short(step: StepRecord) -> list[str]:
    return [f"{sentence(task_word(step.name))}: {told}" for e in step.rounds if (told := short_of_disks(e))]


def _rounds_with(step: StepRecord, mark: str) -> dict[str, list[int]]:
    """Center -> the rounds whose row bears a mark."""
    found: dict[str, list[int]] = {}
    for event in step.rounds:
        for center, row in sorted(event.get("train", {}).items()):
            if row.get(mark):
                found.setdefault(center, []).append(event["round"])
    return found


def _in_rounds(numbers: list[int]) -> str:
    return f"round{'s' if len(numbers) > 1 else ''} {listed([str(number) for number in numbers])}"
