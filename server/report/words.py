"""Numbers and names as people read them: units named, minus signs real, a dash where nothing can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.metrics.names import metric_name as metric_name

DASH = "—"
_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def task_word(key: str) -> str:
    """A task or step inside a sentence: ``tumour_ctpet`` -> ``tumour CT + PET``."""
    fixed = {"ct": "CT", "pet": "PET", "ctpet": "CT + PET", "ehr": "EHR", "hmr": "HMR", "hpv": "HPV"}
    return " ".join(fixed.get(word, word) for word in key.split("_"))


def task_name(key: str) -> str:
    """The same as a heading: ``Tumour CT + PET``."""
    return sentence(task_word(key))


def number(value: float | None, digits: int = 3) -> str:
    """``0.712``, with a real minus sign; a dash for None."""
    if value is None:
        return DASH
    return f"{value + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """``+0.021``, ``−0.004`` or ``0.000``."""
    if value is None:
        return DASH
    text = number(value, digits)
    return text if round(value, digits) <= 0 else f"+{text}"


def count(value: int | None) -> str:
    """``12 345``, in groups of three (narrow no-break spaces)."""
    return DASH if value is None else f"{value:,}".replace(",", " ")


def size(value: float | None) -> str:
    """Bytes in decimal units: ``38.4 kB``, ``1.75 GB``."""
    if value is None:
        return DASH
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= one:
            scaled = value / one
            return f"{scaled:.0f} {unit}" if scaled >= 99.95 else f"{scaled:.3g} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """``4.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds is None:
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def share(part: float, whole: float) -> str:
    """A ratio for people: ``1/52`` when small, ``83 %`` near one, ``2.4 ×`` above."""
    if not whole or not part:
        return DASH
    ratio = part / whole
    if ratio > 1.005:
        return f"{ratio:.1f} ×"
    return f"{100 * ratio:.0f} %" if ratio > 0.2 else f"1/{count(round(1 / ratio))}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def spelled(value: int) -> str:
    """Small numbers in words, as sentences want them."""
    return _SMALL[value] if 0 <= value < len(_SMALL) else count(value)


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plural(n: int, noun: str) -> str:
    """``one step``, ``three steps``."""
    return f"{spelled(n)} {noun}" + ("" if n == 1 else "s")


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def minimums(data: Mapping[str, Any]) -> str | None:
    """Which minimum numbers of patients held, of a run's ``data``; None for a run that began before they were said."""
    if "minimum_cases" not in data:
        return None
    return (
        f"{data['minimum_cases']} to train at a center, {data['minimum_cell']} behind a result; a hospital's own "
        "policy may ask for more"
    )
