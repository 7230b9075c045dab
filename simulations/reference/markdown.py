"""Markdown that also reads as plain text: tables, and the line that says a page is generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def generated(title: str, source: str) -> str:
    """A page's head: its title, and where it comes from."""
    return f"# {title}\n\n<!-- Written by `python -m simulations docs` from {source}; change that, not this. -->\n\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars and line ends inside cells are made harmless."""
    lines = [_row(columns), _row(["---"] * len(columns)), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
