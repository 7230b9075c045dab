"""Whose case is which center's: by a table, a pattern, a folder, or the beginnings of the cases' names.

Sentences count cases; their names go to the logger ``fedgraft.center``, which stays on site.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from client.data.hecktor.mapping import plain
from client.data.layouts.layout import ONE, CenterRule

log = logging.getLogger("fedgraft.center")

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_BEGINNING = re.compile(r"[A-Za-z]+")


@dataclass
class Found:
    """The files of one case, by role: modalities, label, report; ``place`` is the center that its path names."""

    name: str
    place: str | None
    files: dict[str, list[Path]] = field(default_factory=dict)


def counted(names: Sequence[str]) -> str:
    """'1 case has', '3 cases have'."""
    return "1 case has" if len(names) == 1 else f"{len(names)} cases have"


def centers_of(
    folder: Path, found: list[Found], rule: CenterRule, center: str | None, problems: list[str]
) -> dict[int, str]:
    """Center by case. A case whose center cannot be told has none; a folder that names none is all one center's."""
    named = _named(folder, found, rule, problems)
    if named is None:
        return {id(one): center or ONE for one in found}
    lost = [one.name for one in found if not named[id(one)]]
    if lost:
        log.warning("cases without a center: %s", sorted(lost))
        problems.append(f"{counted(lost)} no center that {_said(rule)} tells; complete it.")
    codes = {key: f"C{code}" if code.isdigit() else code for key, code in named.items() if code}
    strange = sorted({code for code in codes.values() if not _CODE.fullmatch(code)})
    if strange:
        problems.append(
            f"{len(strange)} centers have names that cannot be codes ('{strange[0]}'); use letters, digits, - and "
            "_, as in "
            "CHUM or SITE-2."
        )
    return codes


def _named(folder: Path, found: list[Found], rule: CenterRule, problems: list[str]) -> dict[int, str] | None:
    """What the rule says of each case, '' where it says nothing; None where there is nothing to tell centers by."""
    if rule.code:
        return {id(one): rule.code for one in found}
    if rule.table:
        table = _center_table(folder / rule.table, rule, problems)
        return {id(one): table.get(one.name, "") for one in found} if table else {}
    if rule.pattern:
        matches = {id(one): re.search(rule.pattern, one.name) for one in found}
        return {key: (match[1] or "") if match else "" for key, match in matches.items()}
    if any(one.place for one in found):
        return {id(one): one.place or "" for one in found}
    beginnings = {id(one): match[0] if (match := _BEGINNING.match(one.name)) else "" for one in found}
    several = rule.guess and len(set(beginnings.values())) > 1 and all(beginnings.values())
    return beginnings if several else None


def _said(rule: CenterRule) -> str:
    return f"'{rule.table}'" if rule.table else f"the pattern '{rule.pattern}'" if rule.pattern else "its path"


def _center_table(path: Path, rule: CenterRule, problems: list[str]) -> dict[str, str]:
    """Center by case."""
    try:
        frame = pd.read_csv(path, dtype=str, encoding="utf-8-sig").fillna("")
    except (OSError, ValueError) as error:
        problems.append(
            f"The table of centers '{path.name}' cannot be read as comma-separated UTF-8 text ({type(error).__name__})."
        )
        return {}
    columns = {plain(name): name for name in frame.columns}
    lacking = [name for name in (rule.case_column, rule.center_column) if plain(name) not in columns]
    if lacking:
        problems.append(
            f"The table of centers '{path.name}' has no column {' and '.join(map(repr, lacking))}; its columns are "
            f"{', '.join(map(repr, map(str, frame.columns)))}."
        )
        return {}
    names, codes = (frame[columns[plain(name)]].str.strip() for name in (rule.case_column, rule.center_column))
    table: dict[str, str] = {}
    contradicting = {name for name, code in zip(names, codes, strict=True) if table.setdefault(name, code) != code}
    if contradicting:
        problems.append(f"{counted(list(contradicting))} two centers in '{path.name}'; keep one row each.")
    return table
