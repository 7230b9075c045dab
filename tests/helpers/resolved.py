"""A digest of a resolved run that new options at their defaults do not change, and any other change does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from common.config.run import Run

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "resolved.json"


def recorded() -> dict[str, Any]:
    """``options``: class -> the options it had when the digests were made; ``digests``: command -> digest."""
    return json.loads(GOLDEN.read_text())


def digest(run: Run, options: dict[str, list[str]]) -> str:
    """SHA-256 over every value of a resolved run; an option that was not there is left out while at its default."""
    return hashlib.sha256(json.dumps(_told(run, options)).encode()).hexdigest()


def _told(value: Any, options: dict[str, list[str]]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        known = options.get(type(value).__name__, [])
        pairs = {f.name: (f, getattr(value, f.name)) for f in fields(value)}
        told = {n: _told(v, options) for n, (f, v) in pairs.items() if n in known or v != _default(f)}
        return {name: told[name] for name in sorted(told)}
    if isinstance(value, dict):
        return [[key, _told(inner, options)] for key, inner in value.items()]  # the order of steps and parts counts
    return [_told(inner, options) for inner in value] if isinstance(value, list) else value


def _default(option: Field) -> Any:
    return option.default_factory() if option.default_factory is not MISSING else option.default


def options_of(value: Any, found: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    """Class -> options of every dataclass in a run, for recording anew."""
    found = {} if found is None else found
    if is_dataclass(value) and not isinstance(value, type):
        found[type(value).__name__] = sorted(f.name for f in fields(value))
        value = [getattr(value, f.name) for f in fields(value)]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        options_of(inner, found)
    return found
