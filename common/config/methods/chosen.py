"""From what a configuration lists under ``methods`` to options: a name is its preset, a mapping changes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from common.config.methods import METHODS
from common.errors import ConfigError, UnknownName


def chosen(entry: Any, *, presets: Path) -> Any:
    """The options that one entry of ``methods`` stands for.

    Args:
        entry: a name, as ``ewc``; or a mapping with its kind and options, as ``{kind: ewc, strength: 10}``, which
            changes the preset. Options that are typed already stay as they are.
        presets: the folder of ``NAME.yaml``; a method without one has the defaults of its dataclass.

    Raises:
        ConfigError, UnknownName: no such method or option.
    """
    if not isinstance(entry, str | Mapping):
        return entry
    given = {"kind": entry} if isinstance(entry, str) else {str(key): value for key, value in entry.items()}
    kind = str(given.pop("kind", ""))
    if kind not in METHODS:
        raise UnknownName("method", kind, METHODS)
    options = OmegaConf.structured(METHODS[kind])
    unknown = sorted(set(given) - set(options))
    if unknown:
        raise UnknownName(f"option of method {kind}", unknown[0], sorted(set(options) - {"kind"}))
    try:
        return OmegaConf.to_object(OmegaConf.merge(options, _preset(presets / f"{kind}.yaml"), given))
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"Method {kind} has an option of another type: {reason}") from error


def _preset(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
