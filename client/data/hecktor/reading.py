"""A table as text: every cell as it is written, without a library's guesses about missing words, index or names.

Comma, semicolon, tab and bar separate cells, whichever the header's line has most of; UTF-8, or UTF-16 with its mark.
Lines before the header that hold a single cell are a title and are skipped, which is told.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import DataError

TEXT = (".csv", ".tsv", ".tab")
OTHER = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers", ".sav", ".dta", ".sas7bdat", ".rds", ".parquet")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MOST_BYTES = 200_000_000  # a table of patients is a thousandth of it


@dataclass(frozen=True)
class Table:
    """Header and rows, each row as long as the header.

    Args:
        ragged: rows with another number of cells than the header, which are left out: their columns are not known.
        notes: how the file was read where it is no plain table with commas.
    """

    header: list[str]
    rows: list[list[str]]
    separator: str = ","
    ragged: int = 0
    notes: list[str] = field(default_factory=list)


def read_rows(path: Path) -> Table:
    """Read one table. Raises DataError where it is no table of text."""
    text = _text(path)
    separator = _separator(text.split("\n", 20))
    try:
        cells = [row for row in csv.reader(io.StringIO(text), delimiter=separator, strict=True) if any(row)]
    except csv.Error as error:
        raise _unreadable(path, str(error)) from error
    title = next((i for i, row in enumerate(cells) if sum(bool(c.strip()) for c in row) > 1), 0)
    notes = [] if separator == "," else [f"'{path.name}' is separated by {SEPARATORS[separator]}"]
    if title:
        notes.append(f"{title} lines above the header of '{path.name}' were skipped")
    header, *body = cells[title:] or [[]]
    while header and not header[-1].strip() and all(not any(c.strip() for c in r[len(header) - 1 :]) for r in body):
        header = header[:-1]
    whole = [row for row in (_cut(row, len(header)) for row in body) if row is not None]
    return Table([name.strip() for name in header], whole, separator, len(body) - len(whole), notes)


def _cut(row: list[str], length: int) -> list[str] | None:
    """The row without empty cells behind the last column; None where cells are missing or too many."""
    if len(row) < length or any(cell.strip() for cell in row[length:]):
        return None
    return [cell.strip() for cell in row[:length]]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _unreadable(path, "too large")
        content = path.read_bytes()
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = content.decode(encoding)
    except (OSError, UnicodeError) as error:
        raise _unreadable(path, type(error).__name__) from error
    guessed = encoding == "utf-16" and not any(mark in text for mark in SEPARATORS)  # two odd bytes are no mark
    if "\0" in text or guessed:
        raise _unreadable(path, "no text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(lines: list[str]) -> str:
    """What the first line with any separator has most of."""
    first = next((line for line in lines if any(mark in line for mark in SEPARATORS)), "")
    return max(SEPARATORS, key=first.count)


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        f"The table '{path.name}' cannot be read as comma-separated UTF-8 text ({why}); export it again or remove it."
    )
