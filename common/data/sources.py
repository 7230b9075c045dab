"""Sources: what a stage of self-supervised learning looks at: a modality, and the form in which it is shown.

Written as ``MODALITY`` or ``MODALITY:form``: ``EHR`` is a report, ``CT`` a volume, ``CT:slices`` one of its axial
slices, ``PET:projection`` its maximum over the posterior-anterior axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from common.data.batch import EHR, MODALITY, RECORD

REPORT, VOLUME, SLICES, PROJECTION = "report", "volume", "slices", "projection"
IMAGES = (PROJECTION, SLICES, VOLUME)  # forms of a modality that is a volume
HIDDEN = {REPORT: 0.15, PROJECTION: 0.75, SLICES: 0.75, VOLUME: 0.75}  # shares, the paper's


@dataclass(frozen=True)
class Source:
    """A modality in a form."""

    modality: str
    form: str

    @property
    def name(self) -> str:
        """As parts of a state are named: ``CT_slices``."""
        return f"{self.modality}_{self.form}"

    @property
    def is_report(self) -> bool:
        """Whether it is words, and not an image."""
        return self.form == REPORT


def source_of(text: str) -> Source:
    """The source that a configuration names. What is wrong with it, `source_problems` says."""
    modality, _, form = text.partition(":")
    return Source(modality, form or (REPORT if modality == EHR else VOLUME))


def named_sources(texts: Iterable[str]) -> tuple[Source, ...]:
    """The same of several, in their order."""
    return tuple(source_of(text) for text in texts)


def source_problems(texts: Iterable[str], *, where: str) -> Iterator[str]:
    """What is wrong with a list of sources, one sentence each."""
    known = list(texts)
    for text in known:
        source = source_of(text)
        forms = (REPORT,) if source.modality == EHR else IMAGES
        if not MODALITY.fullmatch(source.modality) or source.modality == RECORD or source.form not in forms:
            yield (
                f"{where} names '{text}', which is no source; write EHR for reports, or an image as CT, CT:slices or "
                f"PET:projection (forms: {', '.join(IMAGES)})."
            )
    for name in sorted({s.name for s in named_sources(known) if named_sources(known).count(s) > 1}):
        yield f"{where} names {name} twice; a stage is learned once."
