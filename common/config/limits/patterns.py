"""Patterns of names: ``*`` stands for any text and ``?`` for one letter, nothing else means anything.

Steps carry patterns across the network. A regular expression from there could work without end; this takes at most as
many comparisons as the name has letters times the pattern's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BUT = "!"  # in front of a pattern: what it matches is left out


def matches(name: str, pattern: str) -> bool:
    """Whether the whole name is what the pattern says; capitals count."""
    at = of = 0
    star, again = -1, 0  # the last star, and the letter from which what stands behind it is tried next
    while at < len(name):
        if of < len(pattern) and pattern[of] == "*":
            star, again, of = of, at, of + 1
        elif of < len(pattern) and pattern[of] in ("?", name[at]):
            at, of = at + 1, of + 1
        elif star >= 0:
            again += 1
            at, of = again, star + 1
        else:
            return False
    return not pattern[of:].strip("*")


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches."""
    return any(matches(name, pattern) for pattern in patterns)


def chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches and none that begins with ``!`` does."""
    left_out = [pattern.removeprefix(BUT) for pattern in patterns if pattern.startswith(BUT)]
    taken = [pattern for pattern in patterns if not pattern.startswith(BUT)]
    return matches_any(name, taken) and not matches_any(name, left_out)
