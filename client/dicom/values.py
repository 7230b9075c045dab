"""Elements of a DICOM header, read so that an absent, empty or broken one is None and never an exception.

Any element of any file may be missing, empty, of another type, or hold several values where one is meant; who asks
decides what that means for the patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

ODD = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a file that breaks DICOM's rules can raise inside a reader: of one file, never of the machine."""


def value_of(one: Dataset, name: str) -> Any:
    """An element's value; None where it is absent, empty or cannot be decoded."""
    try:
        value = one.get(name)
    except ODD:
        return None
    return None if value is None or value == "" or (isinstance(value, (bytes, Sequence)) and not len(value)) else value


def has(one: Dataset, name: str) -> bool:
    """Whether the element is there at all, be it empty."""
    return name in one


def words(one: Dataset, name: str) -> list[str]:
    """An element's values as upper-case words; one value is a list of one."""
    value = value_of(one, name)
    several = value if isinstance(value, (MultiValue, list, tuple)) else [] if value is None else [value]
    return [text.upper() for item in several if (text := _text(item))]


def text(one: Dataset, name: str) -> str:
    """An element as text, several values joined by DICOM's own backslash; empty where there is none."""
    value = value_of(one, name)
    several = value if isinstance(value, (MultiValue, list, tuple)) else [] if value is None else [value]
    return "\\".join(_text(item) for item in several).strip()


def number(one: Dataset, name: str) -> float | None:
    """A finite number; None where there is none, or where there are several that differ."""
    found = _floats(value_of(one, name))
    return found[0] if found and len(set(found)) == 1 else None


def numbers(one: Dataset, name: str, count: int) -> np.ndarray | None:
    """Exactly ``count`` finite numbers, or None."""
    found = _floats(value_of(one, name))
    return np.array(found) if len(found) == count else None


def items(one: Dataset, name: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or no sequence."""
    value = value_of(one, name)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def decoded(value: object) -> str:
    """Text of a private element, which a file without its dictionary gives as bytes (VR UN)."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("ascii", errors="replace").strip(" \0")
    return _text(value)


def _text(value: object) -> str:
    try:
        return "" if value is None else str(value).strip(" \0")
    except ODD:
        return ""


def _floats(value: object) -> list[float]:
    """All values as finite numbers; empty where any of them is none."""
    several: list[Any] = (
        list(value) if isinstance(value, (MultiValue, list, tuple, np.ndarray)) else [] if value is None else [value]
    )
    try:
        found = [float(item) for item in several]  # a string with an underscore is no number in DICOM
    except ODD:
        return []
    return found if all(map(math.isfinite, found)) else []
