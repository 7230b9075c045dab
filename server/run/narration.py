"""Narrator: the run told line by line, on screen and to TensorBoard. The ledger is the record; this is the story."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Narrator:
    """Prints one line per event and writes scalars."""

    def __init__(self, folder: Path | None = None, *, say: Callable[[str], None] = print):
        self.say = say
        self._started = time.monotonic()
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def step_started(self, event: dict[str, Any]) -> None:
        """A step begins."""
        centers = ", ".join(event["centers"]) or "nobody (evaluated only)"
        self.say(
            f"[{self._clock()}] {event['step']}: trains at {centers}; {event['adapter_bytes'] / 1e3:,.1f} kB a message"
        )
        for center, reason in event["refused"].items():
            self.say(f"          {center} does not take part: {reason}")

    def round_finished(self, event: dict[str, Any], *, of: int) -> None:
        """A round ends."""
        rows = event["train"].values()
        cases = sum(row["cases"] for row in rows)
        loss = sum(row["loss"] * row["cases"] for row in rows) / cases if cases else float("nan")
        value = event["validation"]["pooled"]
        shown = "—" if value is None else f"{value:.3f}"
        seconds = event["seconds"]["train"] + event["seconds"]["validate"]
        failed = f"  failed: {event['failed']}" if event["failed"] else ""
        failed += f"  void: {event['why_void']}" if event["void"] else ""
        metric = event["validation"]["metric"]
        self.say(
            f"[{self._clock()}]   round {event['round']}/{of}  loss {loss:.4f}  validation {metric} {shown}  "
            f"{len(event['train'])} centers  {seconds:.1f} s{failed}"
        )
        self._scalars(event, loss)

    def step_finished(self, event: dict[str, Any]) -> None:
        """A step is committed."""
        pooled = [
            row
            for row in event["scores"]
            if row["center"] == "pooled" and row["metric"] == event["primary"][row["task"]]
        ]
        told = "  ".join(f"{row['task']} {row['metric']} {_number(row['value'])}" for row in pooled)
        self.say(f"[{self._clock()}]   kept round {event['kept_round']}, adapter {event['key'][:12]}; test: {told}")

    def _scalars(self, event: dict[str, Any], loss: float) -> None:
        if self._writer is None:
            return
        step, number = event["step"], event["round"]
        self._writer.add_scalar(f"{step}/train_loss", loss, number)
        for center, row in event["train"].items():
            self._writer.add_scalar(f"{step}/train_loss_{center}", row["loss"], number)
        if event["validation"]["pooled"] is not None:
            self._writer.add_scalar(
                f"{step}/validation_{event['validation']['metric']}", event["validation"]["pooled"], number
            )
        self._writer.flush()

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes:02d}:{seconds:02d}"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"
