"""Finding: one thing that a hospital should know, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
AREAS = ("folder", "images", "registration", "labels", "records", "privacy", "cohort", "machine", "network", "model")


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        severity: error (a round would fail or lose the case), warning (look at it) or note (good to know).
        area: one of AREAS.
        what: a sentence without any patient in it.
        remedy: what to do; empty for a note that needs nothing.
        cases: the patients it concerns; they stay on site.
    """

    severity: str
    area: str
    what: str
    remedy: str = ""
    cases: tuple[str, ...] = ()

    def as_json(self, *, with_cases: bool) -> dict[str, Any]:
        """Plain values; the patients only where they were asked for, else their number."""
        return {**asdict(self), "cases": list(self.cases) if with_cases else len(self.cases)}


def from_sentence(sentence: str, area: str, *, cases: Sequence[str] = ()) -> Finding:
    """An error from a `DataError`'s sentence, which ends with its remedy after a semicolon."""
    what, _, remedy = sentence.partition("; ")
    remedy = remedy[:1].upper() + remedy[1:]
    return Finding(ERROR, area, what.rstrip(".") + ".", remedy, tuple(cases))


def gathered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that say the same of several cases joined into one; the worst first, then by area."""
    joined: dict[Finding, list[str]] = {}
    for finding in findings:
        joined.setdefault(replace(finding, cases=()), []).extend(finding.cases)
    ordered = sorted(joined, key=lambda f: (SEVERITIES.index(f.severity), AREAS.index(f.area), f.what))
    return [replace(finding, cases=tuple(sorted(set(joined[finding])))) for finding in ordered]
