"""How many rounds a run's steps have: as configured, or, of a step with a budget, as its first enrolment made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from common.config.limits.budget import with_rounds
from common.config.step import Step
from common.store.ledger import Ledger
from server.centers.enrolment import Enrolment


def with_its_rounds(step: Step, ledger: Ledger, enrolment: Enrolment | None = None) -> Step:
    """The step with the rounds that spend its budget, from when it was begun on.

    They follow from the training cases of the centers that took part when it began: a resumed step keeps them, whoever
    has come or gone since. A step that has not begun stays as it is without its enrolment.
    """
    begun = ledger.events("step_started", step=step.name)
    if begun and "rounds" in begun[0]:
        return replace(step, rounds=begun[0]["rounds"])
    if enrolment is None:
        return step
    return with_rounds(step, [enrolment.counts[center]["train"] for center in enrolment.training])


def rounds_of_steps(steps: Mapping[str, Step], ledger: Ledger) -> dict[str, int]:
    """Step -> rounds, in the run's order."""
    return {name: with_its_rounds(step, ledger).rounds for name, step in steps.items()}
