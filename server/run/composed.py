"""Composing a run at the server: what the command line says, and the steps that a bank's models become.

Nothing heavy is imported unless a bank is named: a misspelled option is answered in half a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.config.load import compose_run
from common.config.options import EVALUATE
from common.config.run import Run
from common.errors import ConfigError


def composed_run(overrides: Sequence[str]) -> Run:
    """`compose_run`, with the steps that ``model`` and ``compare_with`` ask for.

    Raises:
        ConfigError: the curriculum needs a model and there is none, or steps of its own stand beside it.
        BankError: a bank cannot be read, was changed, or has no answer to a question that is compared.
    """
    run = compose_run(overrides)
    if run.model is None:
        if run.curriculum == EVALUATE or run.compare_with is not None:
            raise ConfigError(
                "curriculum=evaluate scores models that were trained before, and none is named: add model=runs/NAME, "
                "or the folder of an exported bank; compare_with=OTHER compares it with another one."
            )
        return run
    if run.steps:
        raise ConfigError(
            f"model={run.model} is scored and nothing is trained; name it with curriculum=evaluate alone."
        )
    from server.run.models import add_models

    add_models(run, overrides)
    return run


def as_absolute(run: Run) -> list[str]:
    """Overrides that name a run's banks wherever a process of it works."""
    found: list[str] = []
    if run.model is None:
        return found
    from common.store.exported import split_bank

    for option, given in (("model", run.model), ("compare_with", run.compare_with)):
        if given is None:
            continue
        path, lineage = split_bank(given)
        found.append(f"{option}='{path.resolve()}{'' if lineage is None else ':' + lineage}'")
    return found
