"""The page of centers' statistics: what differs first, then every quantity with a row for each center and scanner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import numpy as np

from common.data.quantities import QUANTITIES
from common.files import write_bytes
from server.statistics.compare import Difference, Told

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(path: Path, told: Sequence[Told], found: Sequence[Difference]) -> None:
    """Write the page: one file that needs no other."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        centers=told,
        differences=[(one, sentence(one, told)) for one in found if one.is_told],
        compared=len(found),
        quantities=[card for name in QUANTITIES if (card := _card(name, told)) is not None],
    )
    write_bytes(path, page.encode())


def sentence(one: Difference, told: Sequence[Told]) -> str:
    """``CT_slice_mm: CHUM (most in 1 to 1.5) and MDA (most in 4 to 4.5) lie 0.93 apart, p = 2e-09``."""
    rows = {center.center: center.histograms[one.quantity] for center in told if center.center in one.centers}
    bins = QUANTITIES[one.quantity].bins
    a, b = (f"{name} (most in {bins[int(np.argmax(rows[name]))]})" for name in one.centers)
    return f"{one.quantity}: {a} and {b} lie {one.distance:.2f} apart, p = {one.adjusted:.1g}"


def summary(
    told: Sequence[Told], found: Sequence[Difference], refused: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Who told how much, who did not and why, and what differs by more than chance."""
    lines = [
        f"{one.center}: {one.cases} patients (in steps of {one.minimum}), {len(one.histograms)} quantities"
        for one in told
    ]
    lines += [f"{center} tells no statistics: {code}" for center, code in sorted(refused.items())]
    lines += [sentence(one, told) for one in found if one.is_told]
    apart = sum(one.is_told for one in found)
    return [*lines, f"{apart} of {len(found)} comparisons differ by more than chance (Holm, 0.05)"]


def _card(name: str, told: Sequence[Told]) -> dict[str, Any] | None:
    rows = [(one.center, one.histograms[name]) for one in told if name in one.histograms]
    rows += [
        (f"{one.center} {make}", own[name])
        for one in told
        for make, own in sorted(one.by_scanner.items())
        if name in own
    ]
    if not rows:
        return None
    shares = [(who, int(row.sum()), [(int(n), round(100 * n / row.sum())) for n in row]) for who, row in rows]
    untold = [one.center for one in told if name not in one.histograms]
    return {
        "name": name,
        "unit": QUANTITIES[name].unit,
        "bins": QUANTITIES[name].bins,
        "rows": shares,
        "untold": untold,
    }
