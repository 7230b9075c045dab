"""Case: one patient at one center, whatever layout the files came in; and which label values a structure has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data.batch import CT
from common.data.records import Value
from common.errors import DataError

LABEL = "label"
HECKTOR = {"GTVp": (1,), "GTVn": (2,)}  # values of a label whose layout names none
Values = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One patient at one center: where the images lie and what is recorded.

    Args:
        images: path by modality (``CT``, ``PET``, ``T1``, ...). Empty in a cohort of tables only.
        label: a label map; which values are which structures, ``structures`` says.
        record: canonical clinical field -> recorded value; a field that is not recorded is absent.
        days, event: relapse-free survival in days, and 1 for a relapse or 0 for censoring; both or neither.
        findings: 18 of 0, 1 or -1 (unknown), in the order of `common.data.findings.FINDINGS`; chest cohort only.
        report: a report that came with the case as text.
        reference: the modality whose image carries the grid; a case without it is a case without images.
        structures: name -> the label's values; None where the layout names none (HECKTOR: 1 GTVp, 2 GTVn).
        ignore: the label's value where nobody drew anything; it is neither trained nor scored.
        untold: why nobody's outcome can be used at the center, one sentence each: steps that need it are refused.
    """

    patient: str
    center: str
    images: Mapping[str, Path]
    label: Path | None
    record: Mapping[str, Value]
    days: float | None
    event: int | None
    findings: tuple[int, ...] | None
    report: str | None
    reference: str = CT
    structures: Mapping[str, Values] | None = None
    ignore: int | None = None
    untold: tuple[str, ...] = ()

    @property
    def has_grid(self) -> bool:
        """Whether the image is there on whose grid every other one and the label are read."""
        return self.reference in self.images


def untold_of(cases: Iterable[Case]) -> list[str]:
    """Why the outcome of these cases' centers cannot be used, each sentence once."""
    return list(dict.fromkeys(sentence for case in cases for sentence in case.untold))


def label_values(case: Case, structures: Sequence[str] | None = None) -> list[Values]:
    """The label's values of each structure, in the order of ``structures`` (None: all that the layout names).

    HECKTOR's labels carry no names: GTVp is 1 and GTVn is 2; other names count by their place.

    Raises:
        DataError: the layout does not name a structure, or two structures overlap without one holding the other.
    """
    known = HECKTOR if case.structures is None else case.structures
    names = list(known if structures is None else structures)
    unknown = [name for name in names if name not in known]
    if unknown and case.structures is None:
        return [(place,) for place in range(1, len(names) + 1)]
    if unknown:
        raise DataError(
            f"The step asks for the structures {', '.join(unknown)}, which the layout does not name; it names "
            f"{', '.join(known)}. Add them under structures:, or name others in task.structures."
        )
    values = [known[name] for name in names]
    for place, one in enumerate(values):
        for other, name in zip(values[:place], names, strict=False):
            if {*one} & {*other} and ({*one} == {*other} or not ({*one} < {*other} or {*other} < {*one})):
                raise DataError(
                    f"The structures '{name}' and '{names[place]}' share label values and neither lies within the "
                    "other, so one voxel could be both; choose one of them in task.structures."
                )
    return values


def check_within(case: Case, structures: Sequence[str], within: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError where a step says otherwise than the layout which structures lie within which."""
    values = dict(zip(structures, label_values(case, structures), strict=True))
    for name, own in values.items():
        inside = [other for other in structures if {*values[other]} < {*own}]
        if sorted(within.get(name, [])) != sorted(inside):
            said, true = (", ".join(names) or "nothing" for names in (within.get(name, []), inside))
            raise DataError(
                f"The step says that {said} lies within '{name}', the layout's label values say {true}; set task."
                f"within to {{{name}: [{', '.join(inside)}]}}, or correct the layout's structures."
            )


def named_values(case: Case) -> set[int]:
    """Every value that the case's label may hold."""
    known = HECKTOR if case.structures is None else case.structures
    ignored = set() if case.ignore is None else {case.ignore}
    return {0, *(value for values in known.values() for value in values), *ignored}
