"""What a run has still to do, from its ledger: the same for whoever starts it, follows it or finds it again."""

from __future__ import annotations

from common.config.run import Run
from common.config.step import Step
from common.store.ledger import Ledger
from server.run.folder import RunFolder

LASTING = ("round_finished", "step_finished", "start_made", "statistics_told", "compared")


def unfinished(run: Run, folder: RunFolder) -> list[str]:
    """Steps that the ledger does not hold, or not yet with their comparison."""
    ledger = Ledger(folder.ledger)
    return [name for name, step in run.steps.items() if not ledger.finished(name) or is_uncompared(step, ledger)]


def is_uncompared(step: Step, ledger: Ledger) -> bool:
    """Whether a step's comparison with an earlier one is still to be made."""
    return bool(step.compared_with) and not ledger.events("compared", step=step.name)


def rounds_done(folder: RunFolder) -> int:
    """How much there is that a resumed run does not repeat: rounds, steps and whatever else was asked once."""
    ledger = Ledger(folder.ledger)
    return sum(len(ledger.events(kind)) for kind in LASTING)
