"""JSON from the network: plain values within bounds, or a sentence; nothing in it is looked up anywhere.

A text is refused before a dataclass is made of it: merging and checking types take time and memory by its length, and
OmegaConf would put a variable of this machine's environment in the place of ``${oc.env:NAME}``.
"""

from __future__ import annotations

import json
import math
from typing import Any

from common.errors import ConfigError

MOST_CHARACTERS = 1 << 16
MOST_ENTRIES = 1000  # of one list or mapping
MOST_LETTERS = 4096  # of one text: a path's length
MOST_DEEP = 12
LARGEST = 1 << 53  # the integers that every reader of JSON agrees on
LOOKED_UP = "${"


def plain_json(text: str, what: str) -> Any:
    """The values of a JSON text. Raises ConfigError where it is none, too large, or would have something looked up.

    Args:
        what: how a sentence calls it: ``A step``.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{what} from a message has {len(text)} characters; at most {MOST_CHARACTERS} are read.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} could not be read from its message: {type(error).__name__}.") from error
    _check(value, what, "", 0)
    return value


def _check(value: Any, what: str, path: str, depth: int) -> None:
    problem = _too_much(value, depth)
    if problem:
        raise ConfigError(f"{what} from a message has {problem}{f' at {path}' if path else ''}.")
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        _check(str(key), what, path, depth + 1)
        _check(inner, what, f"{path}.{key}".removeprefix(".")[:200], depth + 1)


def _too_much(value: Any, depth: int) -> str:
    if depth > MOST_DEEP:
        return f"values more than {MOST_DEEP} deep"
    if isinstance(value, list | dict):
        return f"{len(value)} entries, more than {MOST_ENTRIES}," if len(value) > MOST_ENTRIES else ""
    if isinstance(value, str):
        if LOOKED_UP in value:
            return f"'{LOOKED_UP}', which would be looked up on this machine,"
        return f"a text of {len(value)} letters" if len(value) > MOST_LETTERS else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"the number {value}, which is not finite,"
    is_long = isinstance(value, int) and abs(value) > LARGEST
    return "a whole number beyond 2^53" if is_long else ""
