"""What simulations add to a run: studies, and faults on purpose. Their modules are imported once a run has any."""

from __future__ import annotations

from collections.abc import Iterable

from common.config.compose.registry import Extension, Node
from common.config.run import Run


def nodes() -> Iterable[Node]:
    """The studies' options and steps."""
    from simulations.studies import nodes as of_studies

    return of_studies()


def complete(run: Run) -> None:
    """A run's faults as dataclasses, every key and type checked."""
    if run.faults:
        from simulations.virtual.faults import typed

        typed(run)


def problems(run: Run) -> Iterable[str]:
    """What is wrong with a run's faults."""
    if not run.faults:
        return []
    from simulations.virtual.faults import problems as of_faults

    return of_faults(run)


EXTENSION = Extension(nodes, complete, problems)
