"""A layout that a YAML file declares: ``layout.yaml`` inside the data folder, or any file that is named.

image: {CT: "imagesTr/{case}_0000.nii.gz", PET: "imagesTr/{case}_0001.nii.gz"}
label: "labelsTr/{case}.nii.gz"
structures: {tumor: 1, edema: [2, 3]}
center: {table: centers.csv, case: ID, center: Site}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from client.data.case import Case, Values
from client.data.layouts.layout import CenterRule, Layout, Options
from client.data.layouts.matching import cases_of
from common.data.batch import MODALITY, WRITTEN
from common.errors import DataError
from common.text_yaml import load_text

FILE = "layout.yaml"
KEYS = ("center", "ignore", "image", "label", "name", "reference", "report", "structures")
CENTER_KEYS = ("case", "center", "code", "pattern", "table")
PLACEHOLDERS = ("case", "center")


def read_declared(folder: Path, center: str | None, options: Options) -> list[Case]:
    """The cases of a declared layout. Raises DataError with everything that is wrong with the declaration."""
    return cases_of(folder, load_layout(options.layout or folder / FILE), center, options)


def load_layout(path: Path | str) -> Layout:
    """The layout that a YAML file declares. Raises DataError with everything that is wrong with it."""
    path = Path(path)
    try:
        declared: Any = load_text(path)
    except yaml.YAMLError as error:
        raise DataError(f"The layout '{path}' is not YAML: {' '.join(str(error).split())[:200]}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"The layout '{path}' cannot be read ({type(error).__name__}); name a YAML file.") from error
    problems: list[str] = []
    layout = _layout(declared if isinstance(declared, dict) else {}, path.name, problems)
    if problems:
        raise DataError([f"Layout '{path.name}': {problem}" for problem in problems])
    return layout


def _layout(declared: Mapping[Any, Any], name: str, problems: list[str]) -> Layout:
    for key in sorted(set(map(str, declared)) - set(KEYS)):
        problems.append(f"it has the key '{key}'; known: {', '.join(KEYS)}.{_hint(key, KEYS)}")
    images = _images(declared.get("image"), problems)
    reference = str(declared.get("reference") or next(iter(images), ""))
    if images and reference not in images:
        problems.append(f"reference is '{reference}', which has no image pattern; name one of {', '.join(images)}.")
    label, structures = declared.get("label"), structure_values(declared.get("structures"), problems)
    if label and not structures:
        problems.append("it has a label but does not say what its values are; add structures: {tumor: 1}.")
    ignore = whole_number(declared.get("ignore"))
    if ignore is not None and (not _is_value(ignore) or any(ignore in values for values in structures.values())):
        problems.append(f"ignore is '{ignore}'; write the one whole number that means 'not drawn' and is no structure.")
    others = {key: str(declared[key]) for key in ("label", "report") if declared.get(key)}
    for what, pattern in {**{f"image {m}": p for m, p in images.items()}, **others}.items():
        _check_pattern(what, pattern, problems)
    return Layout(
        name=f"layout '{declared.get('name') or name}'",
        images=images,
        reference=reference,
        label=others.get("label"),
        structures=structures,
        ignore=ignore,
        center=_center(declared.get("center"), problems),
        report=others.get("report"),
    )


def _images(declared: Any, problems: list[str]) -> dict[str, str]:
    if not isinstance(declared, dict) or not declared:
        problems.append('it does not say where the images are; add image: {CT: "imagesTr/{case}_0000.nii.gz"}.')
        return {}
    images = {str(name): str(pattern) for name, pattern in declared.items()}
    for name in images:
        if not MODALITY.fullmatch(name) or name in WRITTEN:
            problems.append(
                f"'{name}' is no name of an image; write capital letters, digits and _, as in CT, PET, MR, T1 or FLAIR."
            )
    return images


def structure_values(declared: Any, problems: list[str]) -> dict[str, Values]:
    """Label values by structure: whole numbers from 1, or lists of them; a value may stand in several structures."""
    structures: dict[str, Values] = {}
    for name, given in (declared or {}).items() if isinstance(declared, dict | None) else ():
        values = tuple(map(whole_number, given)) if isinstance(given, list) else (whole_number(given),)
        if not values or not all(map(_is_value, values)) or 0 in values:
            problems.append(
                f"structure '{name}' is '{given}'; write its label value (a whole number from 1) or a list."
            )
        elif {*values} in [{*others} for others in structures.values()]:
            problems.append(f"structure '{name}' has the same label values as another one; keep one name for them.")
        else:
            structures[plain_name(str(name))] = values
    if not isinstance(declared, dict | None):
        problems.append("structures must be names with label values, as in structures: {tumor: 1, edema: 2}.")
    return structures


def whole_number(written: Any) -> Any:
    """Digits as a number; anything else as it is."""
    return int(written) if isinstance(written, str) and written.isdecimal() and written.isascii() else written


def plain_name(name: str) -> str:
    """A structure's name as configs and tables write it: 'whole tumor' is whole_tumor."""
    return re.sub(r"\W+", "_", name.strip()).strip("_")


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_pattern(what: str, pattern: str, problems: list[str]) -> None:
    names = re.findall(r"\{(.*?)\}", pattern)
    for name in sorted(set(names) - set(PLACEHOLDERS)):
        hint = _hint(name, PLACEHOLDERS)
        problems.append(f"{what} is '{pattern}', with the placeholder {{{name}}}; known: {{case}}, {{center}}.{hint}")
    if "case" not in names:
        problems.append(f"{what} is '{pattern}', without {{case}}: nothing says whose files these are.")
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        problems.append(f"{what} is '{pattern}'; write a path inside the data folder.")
    if what not in ("report",) and not pattern.endswith((".nii.gz", ".nii")):
        problems.append(f"{what} is '{pattern}'; images and labels are NIfTI files (.nii.gz or .nii).")


def _center(declared: Any, problems: list[str]) -> CenterRule:
    if declared is None:
        return CenterRule()
    if isinstance(declared, str):
        return CenterRule(code=declared)
    declared = declared if isinstance(declared, dict) else {}
    unknown = sorted(set(map(str, declared)) - set(CENTER_KEYS))
    if unknown or sum(bool(declared.get(key)) for key in ("code", "pattern", "table")) != 1:
        problems.append(
            "center takes a code (center: CHUM), a pattern on the case's name (center: {pattern: '^([A-Z]+)'}) "
            "or a table "
            "(center: {table: centers.csv, case: COLUMN, center: COLUMN}); a folder or a part of a file's name "
            "is written "
            "as {center} in the patterns."
        )
        return CenterRule()
    pattern = declared.get("pattern")
    if pattern and not _has_group(str(pattern)):
        problems.append(f"center's pattern '{pattern}' needs one group in parentheses, as in '^([A-Z]+)'.")
        return CenterRule()
    return CenterRule(
        code=str(declared["code"]) if declared.get("code") else None,
        pattern=pattern,
        table=declared.get("table"),
        case_column=str(declared.get("case") or "case"),
        center_column=str(declared.get("center") or "center"),
    )


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups >= 1
    except re.error:
        return False


def _hint(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
