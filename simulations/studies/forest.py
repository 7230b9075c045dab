"""A forest plot as inline SVG: one row per center with its interval, and a line at no difference."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from common.metrics import Estimate, written

ROW, LEFT, RIGHT, WIDTH, TOP, BOTTOM = 28, 170, 190, 760, 12, 44


def forest(rows: Mapping[str, Estimate], *, label: str, zero: float = 0.0) -> str:
    """The plot, in the page's colours; an interval wholly below ``zero`` is drawn as harm, wholly above as gain."""
    ends = [end for row in rows.values() for end in (row.low, row.high) if end is not None]
    reach = max([abs(end - zero) for end in ends] or [0.1]) * 1.05 or 0.1
    height = TOP + ROW * len(rows) + BOTTOM
    middle = _x(zero, zero, reach)
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(label)}' font-size='13' "
        "fill='currentColor'>",
        f"<line x1='{middle:.1f}' x2='{middle:.1f}' y1='{TOP}' y2='{height - BOTTOM}' stroke='currentColor' "
        "stroke-dasharray='3 3' opacity='0.6'/>",
    ]
    parts += [_row(name, row, TOP + ROW * (i + 0.5), zero, reach) for i, (name, row) in enumerate(rows.items())]
    for tick in (-reach / 1.05, 0.0, reach / 1.05):
        parts.append(
            f"<text x='{_x(zero + tick, zero, reach):.1f}' y='{height - BOTTOM + 16}' text-anchor='middle'>"
            f"{_signed(zero + tick)}</text>"
        )
    parts.append(f"<text x='{middle:.1f}' y='{height - 8}' text-anchor='middle'>{escape(label)}</text></svg>")
    return "".join(parts)


def _x(value: float, zero: float, reach: float) -> float:
    return LEFT + (value - zero + reach) / (2 * reach) * (WIDTH - LEFT - RIGHT)


def _row(label: str, row: Estimate, y: float, zero: float, reach: float) -> str:
    name = f"<text x='{LEFT - 12}' y='{y + 4:.1f}' text-anchor='end'>{escape(label)}</text>"
    if row.value is None or row.low is None or row.high is None:
        return name + f"<text x='{WIDTH - RIGHT + 12}' y='{y + 4:.1f}'>no comparable pair</text>"
    colour = "var(--bad)" if row.high < zero else "var(--good)" if row.low > zero else "var(--accent)"
    low, high, value = (_x(v, zero, reach) for v in (row.low, row.high, row.value))
    return (
        f"{name}<line x1='{low:.1f}' x2='{high:.1f}' y1='{y:.1f}' y2='{y:.1f}' stroke='{colour}' stroke-width='2'/>"
        f"<rect x='{value - 4.5:.1f}' y='{y - 4.5:.1f}' width='9' height='9' fill='{colour}'/>"
        f"<text x='{WIDTH - RIGHT + 12}' y='{y + 4:.1f}'>{row.text(signed=True, digits=2)}</text>"
    )


def _signed(value: float) -> str:
    return written(value, signed=True, digits=2) if abs(value) >= 0.005 else "0"
