"""What a structure is, in codes that other systems read: SNOMED CT by structure name, and a hospital's own by a YAML.

A mask without a code says nothing to a system that did not make it, so a structure without one is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydicom.sr.coding import Code

from common.config.step import Step
from common.errors import ConfigError, suggestion
from common.text_yaml import load_text

LESION = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
NEOPLASM = Code("108369006", "SCT", "Neoplasm")
HEAD_AND_NECK, BRAIN = Code("774007", "SCT", "Head and Neck"), Code("12738006", "SCT", "Brain")
NODES = Code("312501005", "SCT", "Lymph node of head and neck")
PARTS = ("category", "type", "region")


@dataclass(frozen=True)
class Coded:
    """A structure in codes (DICOM PS3.3 C.8.20.2): what kind of thing, which one, and where it lies.

    Args:
        interpreted: the RT ROI interpreted type (PS3.3 C.8.8.8), ``GTV`` for what is tumor.
    """

    category: Code
    type: Code
    region: Code | None = None
    interpreted: str = ""


CODES: Mapping[str, Coded] = MappingProxyType(
    {
        "GTV": Coded(LESION, NEOPLASM, None, "GTV"),
        "GTVn": Coded(LESION, Code("14799000", "SCT", "Neoplasm, Secondary"), NODES, "GTV"),
        "GTVp": Coded(LESION, Code("86049000", "SCT", "Neoplasm, Primary"), HEAD_AND_NECK, "GTV"),
        "brain": Coded(ANATOMY, BRAIN, None, "ORGAN"),
        "edema": Coded(LESION, Code("79654002", "SCT", "Edema"), BRAIN),
        "necrosis": Coded(LESION, Code("6574001", "SCT", "Necrosis"), BRAIN),
        "whole_tumor": Coded(LESION, NEOPLASM, BRAIN, "GTV"),
    }
)


def coded(structures: Iterable[str], codes: Mapping[str, Coded] = CODES) -> dict[str, Coded]:
    """The codes of structures. Raises ConfigError that names those without one."""
    names = list(structures)
    missing = [name for name in names if name not in codes]
    if missing:
        raise ConfigError(
            f"{'The structure' if len(missing) == 1 else 'The structures'} {', '.join(map(repr, missing))} "
            f"{'has' if len(missing) == 1 else 'have'} no code that other systems could read; give one with --codes "
            f"FILE.yaml (docs: hospital/every-day); known are {', '.join(sorted(codes))}."
            f"{suggestion(missing[0], codes)}"
        )
    return {name: codes[name] for name in names}


def read_codes(path: Path | None) -> Mapping[str, Coded]:
    """The known codes with a hospital's own over them.

    Args:
        path: YAML, structure -> ``category``, ``type`` and, if wanted, ``region``: each ``[value, scheme, meaning]``;
            ``interpreted``: the RT ROI interpreted type.

    Raises:
        ConfigError: the file cannot be read or an entry is no code.
    """
    if path is None:
        return CODES
    import yaml

    try:
        given = load_text(path)  # a code may begin with a zero
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The codes in {path} cannot be read: {error}") from error
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{path} holds no codes; it must say GTVp: {{category: [...], type: [...]}}.")
    problems = [problem for name, entry in given.items() for problem in _problems(str(name), entry, path)]
    if problems:
        raise ConfigError("\n".join(problems))
    return {**CODES, **{str(name): _coded(entry) for name, entry in given.items()}}


def codes_of(step: Step, path: Path | None) -> dict[str, Coded]:
    """The codes of a step's structures, a hospital's own among them. Raises ConfigError where one has none."""
    return coded(step.task.structures, read_codes(path)) if step.task.kind == "segmentation" else {}


def _problems(name: str, entry: Any, path: Path) -> list[str]:
    example = "[49755003, SCT, Morphologically Abnormal Structure]"
    if not isinstance(entry, dict) or not {"category", "type"} <= set(entry) <= {*PARTS, "interpreted"}:
        return [f"{path}: '{name}' needs category and type, and may have region and interpreted."]
    wrong = [part for part in PARTS if part in entry and not _is_code(entry[part])]
    return [f"{path}: {part} of '{name}' is no [value, scheme, meaning], as in {example}." for part in wrong]


def _is_code(given: Any) -> bool:
    limits = (16, 16, 64)  # SH, SH, LO
    return (
        isinstance(given, list)
        and len(given) == 3
        and all(0 < len(str(n)) <= k for n, k in zip(given, limits, strict=True))
    )


def _coded(entry: Mapping[str, Any]) -> Coded:
    parts = {part: Code(*(str(word) for word in entry[part])) for part in PARTS if part in entry}
    return Coded(**parts, interpreted=str(entry.get("interpreted", "")))
