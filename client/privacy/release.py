"""The release gate: every reply of every action passes it on its way out, in a simulation as in a hospital.

One rule: nothing that leaves tells of 1 to minimum - 1 patients. States of fewer than `Minimum.cases` patients do not
leave at all. Sums of fewer than `Minimum.cell` stay, cells within sums are merged or left out as the task declares
(`common.tasks.cells`), and counts below the minimum are told as the minimum. At a minimum of 1 (public or synthetic
patients) a reply leaves as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.errors import PolicyRefusal
from common.protocol.messages import TOO_FEW_CASES, Reply, Sums
from common.tasks.cells import Cells, guarded

COUNTS_OF_CASES = ("cases", "skipped", "train", "validation", "test", "waiting", "adjusted")
FIT_CASES = "fit.cases"


@dataclass(frozen=True)
class Minimum:
    """The fewest patients that a state and a cell of a sum may be of."""

    cases: int = 1
    cell: int = 1


def released(reply: Reply, *, minimum: Minimum, cells: Sequence[Cells] = (), over: int | None = None) -> Reply:
    """The reply as it may leave.

    Args:
        reply: with true counts.
        cells: how its sums count patients by cell.
        over: how many patients the sums are over; ``cases`` of the counts where absent.

    Raises:
        PolicyRefusal: arrays that too few patients made.
    """
    patients = reply.counts.get("cases", 0) if over is None else over
    if (reply.state or reply.extra) and patients < minimum.cases:
        raise PolicyRefusal(TOO_FEW_CASES, f"A state of {patients} patients; local policy asks for {minimum.cases}.")
    sums, changed = _sums(reply.sums, cells, patients, minimum.cell)
    counts = {name: _told(name, count, minimum.cell) for name, count in reply.counts.items()}
    if changed:
        counts["merged"] = 1
    return replace(reply, sums=sums, counts=counts)


def told(count: int, minimum: int) -> int:
    """A number of patients as it may be told: none is told, a few are told as the minimum."""
    return 0 if count == 0 else max(count, minimum)


def _told(name: str, count: int, minimum: int) -> int:
    return told(count, minimum) if name in COUNTS_OF_CASES else count


def _sums(sums: Sums, cells: Sequence[Cells], patients: int, minimum: int) -> tuple[Sums, bool]:
    """What of the sums leaves, and whether anything was kept back."""
    if patients < minimum and not set(sums) <= _FIT:
        return {}, False
    found, changed = guarded(sums, cells, cases=patients, minimum=minimum)
    if FIT_CASES in found:
        found = {**found, FIT_CASES: np.array(float(told(int(found[FIT_CASES]), minimum)))}
    return found, changed


_FIT = {"fit.loss", FIT_CASES, "fit.batches"}  # of a training reply: its state says more
