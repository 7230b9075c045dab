"""Which regions of an RTSTRUCT are which structure, by the names that a clinic gave them.

A pattern's ``*`` may take up what tells one region from another (a side, a number, a level), never a word that makes it
another thing: "GTV total" is no primary although it begins like one, nor are "GTV T+N", "GTVp minus N" or "GTVp 5mm".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from common.errors import DataError

GTVP, GTVN = "GTVp", "GTVn"
LABELS = {GTVP: 1, GTVN: 2}
NAMES: dict[str, list[str]] = {  # HECKTOR's structures; patterns without regard to case, of names that clinics use
    GTVP: ["gtvp*", "gtv-p*", "gtv_p*", "gtv p*", "gtv t*", "gtvt*", "gtv-t*", "gtv_t*", "gtv",
           "gtv-1", "gtv1", "gtv primary*"],
    GTVN: ["gtvn*", "gtv-n*", "gtv_n*", "gtv n*", "gtv ln*", "gtvln*", "gtv node*", "gtvnode*"],
}  # fmt: skip
OTHER_THINGS = frozenset(
    ("all", "and", "avoid", "boost", "both", "cm", "combined", "ctv", "dose", "eval", "exp", "expanded", "expansion",
     "itv", "margin", "minus", "mm", "old", "opt", "ptv", "ring", "shell", "sub", "sum", "test", "tot", "total", "und",
     "union", "without")
)  # fmt: skip
ENDS_OF_WORDS = frozenset(  # what may follow a pattern's last letter: of primary, tumor, node, neck; s; sides, letters
    ("a", "b", "c", "d", "e", "eck", "eft", "ight", "l", "left", "li", "lt", "od", "odal", "ode", "odes", "r", "re",
     "right", "rim", "rimary", "rt", "s", "um", "umor", "umors", "umour", "umours")
)  # fmt: skip
ABBREVIATIONS = frozenset(f"{start}{end}" for start in ("", "gtv") for end in ("p", "t", "n", "ln"))


@dataclass
class Matched:
    """Region numbers and names by structure; names that fit none, and names whose pattern would swallow a word."""

    chosen: dict[str, dict[int, str]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    swallowed: dict[str, str] = field(default_factory=dict)  # region -> the word


def match_names(regions: Mapping[int, str], names: Mapping[str, Sequence[str]]) -> Matched:
    """Sort regions by structure. Raises DataError where one fits several."""
    found = Matched()
    for number, region in sorted(regions.items()):
        plain = " ".join(region.lower().split())
        hits = {s: [p.lower() for p in patterns if fnmatchcase(plain, p.lower())] for s, patterns in names.items()}
        taken = {s: {pattern: swallowed(plain, pattern) for pattern in fits} for s, fits in hits.items() if fits}
        fits = [s for s, words in taken.items() if not all(words.values())]
        if len(fits) > 1:
            raise DataError(
                f"The region '{region}' fits the names of {' and '.join(fits)}; make --names tell them apart."
            )
        if fits:
            found.chosen.setdefault(fits[0], {})[number] = region
            continue
        found.unused.append(region)
        for words in taken.values():
            found.swallowed |= dict.fromkeys([region], next(iter(words.values())))
    return found


def swallowed(region: str, pattern: str) -> str:
    """The word that a pattern's ``*`` takes up and must not; empty where there is none. Both in lower case."""
    pieces = pattern.split("*")
    expression = "(.*)".join(re.escape(piece).replace(r"\?", ".") for piece in pieces)
    match = re.fullmatch(expression, region)
    for piece, taken in zip(pieces, match.groups() if match else (), strict=False):
        found = re.findall(r"[a-z]+", taken)
        if piece[-1:].isalpha() and taken[:1].isalpha():
            begun = re.split(r"[^a-z]", piece)[-1]
            if (begun in ABBREVIATIONS and found[0] not in ENDS_OF_WORDS) or begun + found[0] in OTHER_THINGS:
                return begun.removeprefix("gtv") + found[0]
        sums = re.search(r"[+&]", taken)
        other = [word for word in found if word in OTHER_THINGS]
        if sums or other:
            return other[0] if other else taken.strip()
    return ""
