"""Spellings of one center in a column: "CHUM", "chum" and " CHUM " are one, and a reader is told."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd


def one_spelling(column: pd.Series) -> tuple[pd.Series, list[str]]:
    """The column with each center under its most frequent spelling, and which were joined.

    Letters' case, spaces, dashes, dots and leading zeros of a number do not tell two centers apart.
    """
    spellings: dict[str, Counter[str]] = {}
    for written in column:
        if written:
            spellings.setdefault(_key(written), Counter())[written] += 1
    chosen = {key: counts.most_common(1)[0][0] for key, counts in spellings.items()}
    joined = [
        f"{', '.join(repr(s) for s in sorted(counts))} as '{chosen[key]}'"
        for key, counts in spellings.items()
        if len(counts) > 1
    ]
    return column.map(lambda written: chosen[_key(written)] if written else written), joined


def _key(written: str) -> str:
    number = re.fullmatch(r"0*(\d+)(?:\.0+)?", written.strip())
    return number[1] if number else re.sub(r"[\W_]+", "", written.casefold()) or written
