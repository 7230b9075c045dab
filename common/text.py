"""Text that somebody else wrote, made fit for a log, a ledger or a page: one line, no control characters, not long."""

from __future__ import annotations

import unicodedata

MORE = "…"
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # controls, direction marks, line separators, what is no character


def one_line(text: str, limit: int = 300) -> str:
    """At most ``limit`` characters of a text, those that start a line or cannot be seen replaced by a space."""
    head = text[:limit]
    if head.isascii() and head.isprintable():
        seen = head
    else:
        seen = "".join(" " if unicodedata.category(character) in HIDDEN else character for character in head)
    return seen + MORE if len(text) > limit else seen


def is_plain(text: str, limit: int) -> bool:
    """Whether a text is short enough and of one line as it is."""
    return len(text) <= limit and one_line(text, limit) == text
