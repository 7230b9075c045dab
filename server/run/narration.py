"""Narrator: the run told line by line, on screen and to TensorBoard. The ledger is the record; this is the story."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from common.config.limits.budget import Spent
from common.runtime.pulse import in_words, under_way
from server.centers.stopped import short_of_disks


class Narrator:
    """Prints one line per event and writes scalars.

    Args:
        rounds: step -> its rounds, of the whole run in order, for "step 3 of 5, about 4 min left".
        clock: seconds.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        say: Callable[[str], None] = print,
        rounds: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.say = say
        self._rounds, self._now = dict(rounds or {}), clock
        self._started, self._done = clock(), 0
        self._since = self._started  # the first step's start: what came before it says nothing about rounds
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def step_started(self, event: dict[str, Any]) -> None:
        """A step begins."""
        centers = ", ".join(event["centers"]) or "nobody (evaluated only)"
        step = event["step"]
        if "rounds" in event:
            self._rounds[step] = event["rounds"]
        self.say(
            f"[{self._clock()}] {self._place(step)}{step}: trains at {centers}; "
            f"{event['adapter_bytes'] / 1e3:,.1f} kB a message{self._left(step, 0)}"
        )
        if not self._done:
            self._since = self._now()
        under_way(f"{self._place(step)}{step}: first scores")
        for center, reason in event["refused"].items():
            self.say(f"          {center} does not take part: {reason}")

    def rounds_of(self, step: str) -> int:
        """As many as the step has, as far as is known."""
        return self._rounds[step]

    def round_finished(self, event: dict[str, Any], *, of: int) -> None:
        """A round ends."""
        self._done += 1
        rows = event["train"].values()
        loss = event.get("secure_sum", {}).get("loss", mean_loss(rows))
        learned = "" if loss is None else f"loss {loss:.4f}  "
        value = event["validation"]["pooled"]
        shown = "—" if value is None else f"{value:.3f}"
        seconds = event["seconds"]["train"] + event["seconds"]["validate"]
        failed = f"  failed: {event['failed']}" if event["failed"] else ""
        failed += f"  void: {event['why_void']}" if event["void"] else ""
        failed += _of_vaults(event["train"])
        failed += f"  {told}" if (told := short_of_disks(event)) else ""
        metric, masked = event["validation"]["metric"], " under masks" if event.get("secure_sum") else ""
        self.say(
            f"[{self._clock()}]   round {event['round']}/{of}  {learned}validation {metric} {shown}  "
            f"{len(event['train'])} centers{masked}  {seconds:.1f} s{failed}{self._left(event['step'], event['round'])}"
        )
        coming = f"round {event['round'] + 1} of {of}" if event["round"] < of else "scoring what was learned"
        under_way(f"{self._place(event['step'])}{event['step']}: {coming}")
        self._scalars(event, loss)

    def step_finished(self, event: dict[str, Any]) -> None:
        """A step is committed."""
        pooled = [
            row
            for row in event["scores"]
            if row["center"] == "pooled" and row["metric"] == event["primary"][row["task"]]
        ]
        told = "  ".join(f"{row['task']} {row['metric']} {_number(row['value'])}" for row in pooled)
        spent = Spent(**event.get("spent", {}))
        cost = f" ({spent})" if spent.steps else ""
        kept = f"kept round {event['kept_round']}{cost}, adapter {event['key'][:12]}"
        self.say(f"[{self._clock()}]   {kept}; test: {told}")
        under_way("preparing the next step" if event["step"] != [*self._rounds, event["step"]][-1] else "finishing")

    def _place(self, step: str) -> str:
        """``step 3 of 5, ``, where the whole run is known."""
        names = list(self._rounds)
        return f"step {names.index(step) + 1} of {len(names)}, " if step in names else ""

    def _left(self, step: str, finished: int) -> str:
        """``, about 4 min left``: rounds to come, at the pace of those that this process saw."""
        if not self._done or step not in self._rounds:
            return ""
        names = list(self._rounds)
        coming = sum(self._rounds[name] for name in names[names.index(step) :]) - finished
        pace = (self._now() - self._since) / self._done
        return f", about {in_words(coming * pace)} left" if coming > 0 else ""

    def _scalars(self, event: dict[str, Any], loss: float | None) -> None:
        if self._writer is None:
            return
        step, number = event["step"], event["round"]
        told = {"": loss} | {f"_{center}": row["loss"] for center, row in event["train"].items()}
        for whose, value in told.items():
            if value is not None:
                self._writer.add_scalar(f"{step}/train_loss{whose}", value, number)
        if event["validation"]["pooled"] is not None:
            self._writer.add_scalar(
                f"{step}/validation_{event['validation']['metric']}", event["validation"]["pooled"], number
            )
        self._writer.flush()

    def _clock(self) -> str:
        minutes, seconds = divmod(int(self._now() - self._started), 60)
        return f"{minutes:02d}:{seconds:02d}"


def _of_vaults(rows: dict[str, dict[str, Any]]) -> str:
    """Centers that go on without what their vaults had, and those whose vaults know a later round than the ledger."""
    afresh = ", ".join(sorted(center for center, row in rows.items() if row.get("afresh")))
    ahead = ", ".join(f"{center} (round {row['ahead']})" for center, row in sorted(rows.items()) if row.get("ahead"))
    told = f"  afresh, their vaults are lost: {afresh}" if afresh else ""
    return told + (f"  the ledger was rolled back, vaults know later rounds: {ahead}" if ahead else "")


def mean_loss(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """A round's training loss per case over its centers; None where none was told, as under noise."""
    told = [(row["loss"], row.get("cases", 0)) for row in rows if row.get("loss") is not None]
    cases = sum(count for _, count in told)
    return sum(loss * count for loss, count in told) / cases if cases else None


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"
