"""The release gate: every reply of every action passes it on its way out, in a simulation as in a hospital.

One rule: nothing that leaves tells of 1 to minimum - 1 patients. States of fewer than `Minimum.cases` patients do not
leave at all. Sums of fewer than `Minimum.cell` stay, cells within sums are merged or left out as the task declares
(`common.tasks.cells`), and counts of patients are told in whole steps of the minimum: what one more or one fewer
changes is nothing, or a whole step. They are told upwards, so that no sum is over more patients than were registered,
and no patients are told as none. At a minimum of 1 (public or synthetic patients) a reply leaves as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.errors import PolicyRefusal
from common.protocol.messages import TOO_FEW_CASES, Reply, Sums
from common.tasks.cells import Cells, guarded

COUNTS_OF_CASES = ("cases", "skipped", "train", "validation", "test", "waiting", "adjusted")
FIT_LOSS, FIT_CASES, FIT_BATCHES, BATCHES = "fit.loss", "fit.cases", "fit.batches", "batches"


@dataclass(frozen=True)
class Minimum:
    """The fewest patients that a state and a cell of a sum may be of."""

    cases: int = 1
    cell: int = 1


def released(
    reply: Reply, *, minimum: Minimum, cells: Sequence[Cells] = (), over: int | None = None, batch: int = 1
) -> Reply:
    """The reply as it may leave.

    Args:
        reply: with true counts.
        cells: how its sums count patients by cell.
        over: how many patients the sums are over; ``cases`` of the counts where absent.
        batch: cases in a batch, for the number of batches.

    Raises:
        PolicyRefusal: arrays that too few patients made.
    """
    patients = reply.counts.get("cases", 0) if over is None else over
    if (reply.state or reply.extra) and patients < minimum.cases:
        raise PolicyRefusal(TOO_FEW_CASES, f"A state of {patients} patients; local policy asks for {minimum.cases}.")
    sums, changed = _sums(reply.sums, cells, patients, minimum.cell)
    counts = {name: _told(name, count, minimum.cell) for name, count in reply.counts.items()}
    if FIT_LOSS in sums and minimum.cell > 1:  # what is kept at a step's end is over patients on record, and counted so
        fit = _fit(sums, patients, minimum.cell, batch)
        counts |= {BATCHES: int(fit[FIT_BATCHES])} if BATCHES in counts else {}
        sums = sums | {name: np.array(fit[name]) for name in sums if name in fit}
    if changed:
        counts["merged"] = 1
    return replace(reply, sums=sums, counts=counts)


def raised(cell: int, asked: int) -> int:
    """A hospital's own minimum as an order may raise it: to a multiple. Counted in steps of 5, of 6 and of 7, patients
    would be known to the last one; steps of 10 say no more than those of 5."""
    return told(max(asked, cell), cell)


def told(count: int, minimum: int) -> int:
    """A number of patients as it may be told: the next multiple of the minimum, none as none."""
    return math.ceil(count / minimum) * minimum


def _told(name: str, count: int, minimum: int) -> int:
    return told(count, minimum) if name in COUNTS_OF_CASES else count


def _sums(sums: Sums, cells: Sequence[Cells], patients: int, minimum: int) -> tuple[Sums, bool]:
    """What of the sums leaves, and whether anything was kept back."""
    if patients < minimum and not set(sums) <= _FIT:
        return {}, False
    return guarded(sums, cells, cases=patients, minimum=minimum)


def _fit(sums: Sums, patients: int, minimum: int, batch: int) -> dict[str, float]:
    """What a pass over the patients says as if they were as many as may be told; the mean loss stays.

    A number of cases over several passes, or of batches, would tell that of the patients.
    """
    seen = float(sums[FIT_CASES])
    passes, cases = math.ceil(seen / max(patients, 1)), told(patients, minimum)
    mean = float(sums[FIT_LOSS]) / seen if seen else 0.0
    batches = passes * math.ceil(cases / batch)
    return {FIT_LOSS: mean * passes * cases, FIT_CASES: float(passes * cases), FIT_BATCHES: float(batches)}


_FIT = {FIT_LOSS, FIT_CASES, FIT_BATCHES}  # of a training reply: its state says more
