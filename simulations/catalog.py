"""Every option of a run with default, unit and meaning, read from the dataclasses and the comments beside their fields.

The comments are the only source: a field's own line, or lines of comment directly above it.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from io import StringIO
from typing import Any, get_type_hints

from common.config.adapter import PARTS
from common.config.federation import FEDERATIONS
from common.config.methods import METHODS
from common.config.privacy import PRIVACIES
from common.config.run import Run
from common.config.step import Step
from common.config.task import TASKS

STEP, PART = "steps.STEP", "steps.STEP.adapter.parts.PART"
UNITS = {"_mm": "mm", "_s": "s", "_days": "days", "_months": "months", "_gb": "GB", "_hu": "HU", "_ml": "ml"}
SLOTS: dict[str, Mapping[str, type]] = {  # where a dataclass of one of several kinds stands
    f"{STEP}.task": TASKS,
    f"{STEP}.federation": FEDERATIONS,
    f"{STEP}.methods": METHODS,
    f"{STEP}.privacy": PRIVACIES,
    PART: PARTS,
}
BY_NAME = (
    "steps",
    "controls",
    "faults",
    "parts",
    "study",
    "task",
    "federation",
    "methods",
    "privacy",
)  # slots, no values


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        path: as on the command line; STEP, PART and NAME stand for a name of one's own.
        kinds: of the slot, for which it exists; empty: every one.
    """

    path: str
    kinds: str
    default: str
    unit: str
    meaning: str


def options_of_run(more: Mapping[str, Mapping[str, type]] | None = None) -> list[Option]:
    """Every option, in the order of the dataclasses.

    Args:
        more: further slots, as a package on top has them: path -> kind -> dataclass.
    """
    found = [*_plain(Run, ""), *_plain(Step, f"{STEP}.")]
    for path, kinds in {**SLOTS, **(more or {})}.items():
        found += _of_kinds(path, kinds)
    return found


def matching(options: Sequence[Option], prefix: str) -> list[Option]:
    """Options whose path begins with ``prefix``; a step's, part's or fault's own name is as good as its placeholder."""
    asked = re.sub(r"^(steps|controls)\.[^.]+", STEP, prefix) if "." in prefix else prefix
    asked = re.sub(r"\.parts\.[^.]+", ".parts.PART", asked)
    asked = re.sub(r"^faults\.[^.]+", "faults.NAME", asked)
    return [option for option in options if option.path.startswith(asked)]


def meaning_of(cls: type, name: str) -> str:
    """What the comments beside a field say; empty where they say nothing."""
    for owner in cls.__mro__:
        if name in inspect.get_annotations(owner):
            return _comments(owner).get(name, "")
    return ""


def _plain(cls: type, prefix: str, made: Any = None) -> Iterator[Option]:
    """A dataclass's options with the defaults that they have where it stands (``made``)."""
    hints, made = get_type_hints(cls), cls() if made is None else made
    for option in fields(cls):
        default = getattr(made, option.name)
        hint = hints[option.name]
        inner = next((t for t in (hint, *getattr(hint, "__args__", ())) if is_dataclass(t) and t is not Step), None)
        if isinstance(inner, type):
            yield from _plain(inner, f"{prefix}{option.name}.", default)
        elif option.name not in BY_NAME:
            unit = next((unit for suffix, unit in UNITS.items() if option.name.endswith(suffix)), "")
            yield Option(f"{prefix}{option.name}", "", json.dumps(default), unit, meaning_of(cls, option.name))


def _of_kinds(path: str, kinds: Mapping[str, type]) -> Iterator[Option]:
    """The choice of a kind, then options by the kinds that have them with the same default."""
    for kind, cls in kinds.items() if len(kinds) > 1 else ():
        yield Option(f"{path}.kind", kind, kind, "", _summary(cls))
    found: dict[Option, list[str]] = {}
    for kind, cls in kinds.items():
        for option in _plain(cls, f"{path}."):
            if option.path != f"{path}.kind" or len(kinds) == 1:
                found.setdefault(option, []).append(kind)
    for option, names in found.items():
        shown = "" if len(names) == len(kinds) else ", ".join(names)
        yield Option(option.path, shown, option.default, option.unit, option.meaning)


def _summary(cls: type) -> str:
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    return " ".join(text.partition("\n\n")[0].split())


@lru_cache(maxsize=256)
def _comments(cls: type) -> dict[str, str]:
    """Field -> the comment lines directly above it and the comment on its own lines, joined."""
    source = textwrap.dedent(inspect.getsource(cls))
    said, alone = {}, set()
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# fmt"):
            said[token.start[0]] = token.string.lstrip("# ")
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    [body] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            lines = range(first, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(said[line] for line in lines if line in said)
    return found
