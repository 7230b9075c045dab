"""Whose case is which center's: by a table, a pattern, a folder, or the beginnings of the cases' names.

Sentences count cases; their names go to the logger ``fedgraft.center``, which stays on site.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from client.data.hecktor.centers import one_spelling
from client.data.hecktor.mapping import plain
from client.data.hecktor.reading import read_rows
from client.data.hecktor.tables import is_few
from client.data.layouts.layout import ONE, CenterRule, Options
from common.errors import DataError

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


def leave_out(names: Sequence[str], of: int, options: Options, *, what: str, remedy: str) -> None:
    """Say what is wrong with some cases: a few are left out, more are another layout than is thought and stop.

    Args:
        of: how many cases there are.
        what: what they have: "1 case has" goes before it.
    """
    log.warning("cases that have %s: %s", what, sorted(names))
    few = is_few(len(names), of) and len(names) < of
    said = f"{counted(names)} {what}{' and is left out' if few and len(names) == 1 else ' and are left out' * few}"
    (options.odd if few else options.problems).append(f"{said}; {remedy}.")


def centers_of(
    folder: Path, found: list[Found], rule: CenterRule, center: str | None, options: Options
) -> dict[int, str]:
    """Center by case. A case whose center cannot be told has none; a folder that names none is all one center's."""
    named = _named(folder, found, rule, options)
    if named is None:
        return {id(one): center or ONE for one in found}
    problems = options.problems
    lost = [one.name for one in found if named.get(id(one)) == ""]
    if lost:
        leave_out(lost, len(found), options, what=f"no center that {_said(rule)} tells", remedy="complete it")
    codes = {key: f"C{code}" if code.isdigit() else code for key, code in named.items() if code}
    strange = sorted({code for code in codes.values() if not _CODE.fullmatch(code)})
    if strange:
        problems.append(
            f"{len(strange)} centers have names that cannot be codes ('{strange[0]}'); use letters, digits, - and "
            "_, as in "
            "CHUM or SITE-2."
        )
    return codes


def _named(folder: Path, found: list[Found], rule: CenterRule, options: Options) -> dict[int, str] | None:
    """What the rule says of each case, '' where it says nothing; None where there is nothing to tell centers by. A case
    of which the table says two things stands nowhere: that is said of itself."""
    if rule.code:
        return {id(one): rule.code for one in found}
    if rule.table:
        table = _center_table(folder / rule.table, rule, options)
        contradicting = _contradicting(table, {one.name for one in found})
        if contradicting:
            what, remedy = f"two centers in '{rule.table}'", "keep one row each"
            leave_out(contradicting, len(found), options, what=what, remedy=remedy)
        codes = dict(table)
        return {id(one): codes.get(one.name, "") for one in found if one.name not in contradicting} if codes else {}
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


def _center_table(path: Path, rule: CenterRule, options: Options) -> list[tuple[str, str]]:
    """Case and center of each row, as they are written; spellings of one center are joined, which is told."""
    try:
        table = read_rows(path)
    except DataError as error:
        options.problems += error.problems
        return []
    header = [plain(name) for name in table.header]
    wanted = [plain(rule.case_column), plain(rule.center_column)]
    lacking = [name for name in (rule.case_column, rule.center_column) if plain(name) not in header]
    double = [name for name in dict.fromkeys(wanted) if header.count(name) > 1]
    if lacking:
        options.problems.append(
            f"The table of centers '{path.name}' has no column {' and '.join(map(repr, lacking))}; its columns are "
            f"{', '.join(map(repr, table.header))}."
        )
    if double:
        options.problems.append(
            f"The table of centers '{path.name}' has several columns called {' and '.join(map(repr, double))}; keep "
            "one of each."
        )
    if lacking or double:
        return []
    options.notes += [f"{note}." for note in table.notes]
    if table.ragged:
        options.odd.append(
            f"{table.ragged} rows of '{path.name}' have another number of cells than the header and are not read."
        )
    names, codes = ([row[header.index(name)] for row in table.rows] for name in wanted)
    spelled, joined = one_spelling(pd.Series(codes, dtype=object))
    options.notes += [f"Centers of '{path.name}' under several spellings were joined: {pair}." for pair in joined]
    return list(zip(names, spelled, strict=True))


def _contradicting(table: Iterable[tuple[str, str]], cases: set[str]) -> list[str]:
    """Cases of which the table says two things."""
    first: dict[str, str] = {}
    return sorted({name for name, code in table if first.setdefault(name, code) != code} & cases)
