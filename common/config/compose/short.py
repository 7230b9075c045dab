"""Short forms: what people type first, as the overrides that Hydra knows.

| typed | means |
|---|---|
| ``steps.X.federation=fedadam`` (also adapter, privacy, task) | ``federation@steps.X.federation=fedadam`` |
| ``steps.X.learning_rate=1e-3``, ``steps.X.lr=1e-3`` (all of training) | ``steps.X.training.learning_rate=1e-3`` |
| ``federation=fedadam``, ``adapter=[decoder]``, ``training.epochs=2``, ``privacy.batch=8`` | the same for every step |

"Every step" is every step and control that is trained, is not fitted exactly (newton: sums are not updates), and names
no value of its own on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

from common.config.run import Run
from common.config.step import Step
from common.config.training import Training

GROUPS = ("adapter", "federation", "privacy", "task")
FOR_EVERY_STEP = ("adapter", "federation", "privacy")
TRAINING = {f.name: f.name for f in fields(Training)} | {"lr": "learning_rate", "batch_size": "batch"}
SHORT = {name: meant for name, meant in TRAINING.items() if name not in {f.name for f in fields(Step)}}
CHOICE = re.compile(r"(?!null$)[A-Za-z_]\w*|\[\s*\w+(\s*,\s*\w+)*\s*\]")
OF_STEP = re.compile(r"(?P<place>(?:steps|controls)\.[^.=@]+)\.(?P<key>[^=]+)")


def spelled_out(overrides: Sequence[str], compose: Callable[[tuple[str, ...]], Run]) -> tuple[str, ...]:
    """The overrides without short forms; those for every step come first, so that any other override wins.

    Args:
        compose: asked for the steps, where an override is for every one of them.
    """
    given = [_of_one_step(override) for override in overrides]
    general = [override for override in given if _general(override)]
    if not general:
        return tuple(given)
    rest = tuple(override for override in given if override not in general)
    run = compose(rest)
    return (*(made for override in general for made in _for_each(override, run, rest)), *rest)


def _of_one_step(override: str) -> str:
    path, equals, value = override.partition("=")
    found = OF_STEP.fullmatch(path)
    if not equals or found is None:
        return override
    place, key = found["place"], found["key"]
    if key in GROUPS and CHOICE.fullmatch(value):
        return f"{key}@{place}.{key}={value}"
    inner = _of_training(key)
    return f"{place}.{inner}={value}" if inner else override


def _of_training(key: str) -> str | None:
    """``lr`` or ``training.lr`` as ``training.learning_rate``; None for what is no option of training."""
    known = TRAINING if key.startswith("training.") else SHORT
    head, dot, tail = key.removeprefix("training.").partition(".")
    return f"training.{known[head]}{dot}{tail}" if head in known else None


def _general(override: str) -> tuple[str, str] | None:
    """An override for every step, as (path within a step, value)."""
    path, equals, value = override.partition("=")
    whole = path in FOR_EVERY_STEP
    inner = path if whole or path.startswith("privacy.") else None
    inner = _of_training(path) if path.startswith("training.") else inner
    return (inner, value) if equals and inner else None


def _for_each(override: str, run: Run, rest: Sequence[str]) -> Iterator[str]:
    path, value = _general(override) or ("", "")
    for group, steps in (("steps", run.steps), ("controls", run.controls)):
        for name, step in steps.items():
            place = f"{group}.{name}.{path}"
            own = f"{path}@{place}=" if path in GROUPS else f"{place}="
            stays = step.rounds == 0 or step.federation.kind == "newton" or (group == "steps" and name in run.controls)
            if not stays and not any(given.startswith(own) for given in rest):
                yield f"{own}{value}"
