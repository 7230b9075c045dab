"""Charts as inline SVG: they take their colours from the page, so light and dark need no second drawing.

Every function returns markup with escaped text, no ids and no references, and the same bytes for the same input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from common.metrics import Estimate
from server.report.survival import Curve
from server.report.words import number

COLOURS = 8  # --c0 ... --c7 in the style sheet
MONTH = 30.4375  # days
_MARKS = ("circle", "square", "up", "diamond", "down", "cross", "bar", "plus")


@dataclass
class Line:
    """One series: values per round, None where there is none. ``slot`` picks colour and mark; None: the pooled line."""

    label: str
    values: list[float | None]
    slot: int | None


@dataclass
class Point:
    """One bin of predictions: mean predicted share, observed share with its interval, and the number of cases."""

    predicted: float
    observed: float
    cases: float
    low: float | None = None
    high: float | None = None


@dataclass
class ForestRow:
    """One row of a forest plot."""

    name: str
    estimate: Estimate
    pooled: bool = False


@dataclass
class Frame:
    """A plotting area inside a viewBox, and the map from data to it."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 40
    right: float = 10
    top: float = 10
    bottom: float = 32

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low or 1) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low or 1) * (self.height - self.top - self.bottom)


def ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Round numbers that enclose [low, high], about that many."""
    span = high - low or abs(high) or 1.0
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def learning_curve(lines: Sequence[Line], *, label: str, kept: int | None = None) -> Markup:
    """Values per round, one line per center and a heavy one for the pooled value; the kept round is marked."""
    known = [v for line in lines for v in line.values if v is not None]
    rounds = max((len(line.values) for line in lines), default=0)
    if not known:
        return Markup("")
    marks = ticks(min(known), max(known))
    frame = Frame(280, 190, (0.85, max(rounds, 2) + 0.15), (marks[0], marks[-1]), left=38, top=14, right=8)
    parts = [*_y_axis(frame, marks), *_round_axis(frame, rounds)]
    if kept:
        parts.append(_kept(frame, kept))
    parts += [_series(frame, line) for line in sorted(lines, key=lambda line: line.slot is None)]
    return _svg(frame, f"{label} per round", parts)


def survival_chart(
    low: Curve, high: Curve, *, label: str = "Relapse-free survival by predicted risk", upward: str = ""
) -> Markup:
    """Two Kaplan-Meier curves with 95 % bands, and the number at risk below the axis.

    Args:
        upward: the vertical axis' title, where the text around the chart does not give it.
    """
    horizon = max(low.days[-1], high.days[-1], 1.0)
    months = _month_ticks(horizon)
    frame = Frame(440, 320, (0, horizon), (0, 1), left=76, top=14, right=16, bottom=98)
    parts = [*_y_axis(frame, [0, 0.25, 0.5, 0.75, 1.0], digits=2), *_month_axis(frame, months)]
    parts += [_upward(frame, upward)] if upward else []
    bottom = frame.height - frame.bottom
    parts.append(_text(frame.left - 26, bottom + 52, "At risk", anchor="end", cls="axis-title"))
    for row, (name, curve) in enumerate((("low", low), ("high", high))):
        parts += [_band(frame, curve, name), _steps(frame, curve, name)]
        y = bottom + 68 + 16 * row
        parts.append(_text(frame.left - 26, y, name, anchor="end", cls=f"risk-{name}-text"))
        parts += [_text(frame.x(m * MONTH), y, str(_entering(curve, m * MONTH)), cls="num") for m in months]
    return _svg(frame, label, parts, cls="chart km")


def reliability_chart(
    points: Sequence[Point],
    *,
    label: str,
    across: str = "predicted share",
    upward: str = "",
    lowest: float = 0.0,
) -> Markup:
    """Observed against predicted share, one disc per bin, larger for more cases; the diagonal is perfect.

    Shares observed under censoring are weighted and may lie above one; they are drawn at the edge. A bin with an
    interval has a small disc.

    Args:
        across, upward: the axes' titles.
        lowest: a share that both axes must reach down to.
    """
    marks = ticks(lowest, 1.0)
    both = (marks[0], 1.0)
    frame = Frame(300, 300, both, both, left=48, top=12, right=12, bottom=46)
    digits = max(2, _digits(marks))
    parts = [*_y_axis(frame, marks, digits=digits), *_share_axis(frame, marks, across, digits=digits)]
    parts += [_upward(frame, upward)] if upward else []
    diagonal = Markup('<line class="kept" x1="{0}" y1="{1}" x2="{2}" y2="{3}"/>')
    parts.append(diagonal.format(_n(frame.x(both[0])), _n(frame.y(both[0])), _n(frame.x(1)), _n(frame.y(1))))
    most = max((point.cases for point in points), default=1.0)
    for point in points:
        radius = 3 + 9 * math.sqrt(point.cases / most) if point.low is None else 5.0
        disc = Markup('<circle class="disc" cx="{0}" cy="{1}" r="{2}"><title>{3}</title></circle>')
        told = f"{point.cases:.0f} cases: predicted {number(point.predicted, 2)}, observed {number(point.observed, 2)}"
        place = frame.x(point.predicted), frame.y(min(max(point.observed, 0.0), 1.0))
        parts += _whisker_upward(frame, point)
        parts.append(disc.format(_n(place[0]), _n(place[1]), _n(radius), told))
    return _svg(frame, label, parts, cls="chart reliability")


def forest_chart(rows: Sequence[ForestRow], *, label: str, chance: float | None) -> Markup:
    """A row per center: its value, a square, larger for more cases, and its 95 % interval.

    Args:
        chance: drawn as a line; None where a metric has none.
    """
    shown = [row.estimate for row in rows]
    ends = [v for e in shown for v in (e.low, e.high, e.value, chance) if v is not None]
    marks = ticks(max(0.0, min(ends, default=0.0)), min(1.0, max(ends, default=1.0)))
    height = 24 * len(rows) + 60
    frame = Frame(560, height, (marks[0], marks[-1]), (0, 1), left=88, right=150, top=18, bottom=42)
    bottom = frame.height - frame.bottom
    parts = [
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            _n(frame.x(m)), _n(frame.top - 8), _n(bottom)
        )
        for m in marks
    ]
    parts += [_text(frame.x(m), bottom + 16, number(m, max(1, _digits(marks))), cls="num") for m in marks]
    middle = (frame.left + frame.width - frame.right) / 2
    parts.append(_text(middle, bottom + 34, label, cls="axis-title"))
    if chance is not None and marks[0] <= chance <= marks[-1]:
        line = Markup('<line class="kept" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>')
        parts.append(line.format(_n(frame.x(chance)), _n(frame.top - 8), _n(bottom)))
    most = max((row.estimate.n for row in rows if not row.pooled), default=1)
    for place, row in enumerate(rows):
        parts += _forest_row(frame, row, frame.top + 24 * place + 6, most)
    return _svg(frame, label, parts, cls="chart forest")


def _forest_row(frame: Frame, row: ForestRow, y: float, most: int) -> list[Markup]:
    found, strong = row.estimate, "forest-pooled" if row.pooled else ""
    parts = [_text(frame.left - 10, y + 4, row.name, anchor="end", cls=strong)]
    edge = frame.width - frame.right + 12
    if found.value is None:
        why = f"— ({found.n} cases)" if found.n else "— suppressed"
        return [*parts, _text(edge, y + 4, why, anchor="start")]
    between = ""
    if found.low is not None and found.high is not None:
        a, b = frame.x(max(found.low, frame.x_range[0])), frame.x(min(found.high, frame.x_range[1]))
        whisker = Markup('<path class="whisker" d="M{0} {2}H{1}M{0} {3}V{4}M{1} {3}V{4}"/>')
        parts.append(whisker.format(_n(a), _n(b), _n(y), _n(y - 4), _n(y + 4)))
        between = f" [{number(found.low, 2)}, {number(found.high, 2)}]"
    side = 10.0 if row.pooled else 4 + 6 * math.sqrt(found.n / max(most, 1))
    turned = f' transform="rotate(45 {_n(frame.x(found.value))} {_n(y)})"' if row.pooled else ""
    square = Markup('<rect class="point" x="{0}" y="{1}" width="{2}" height="{2}"{3}/>')
    parts.append(square.format(_n(frame.x(found.value) - side / 2), _n(y - side / 2), _n(side), Markup(turned)))
    return [*parts, _text(edge, y + 4, f"{number(found.value, 2)}{between}", anchor="start", cls=f"num {strong}")]


def interval_strip(difference: float, low: float, high: float, *, limit: float) -> Markup:
    """A point with its interval on an axis from -limit to +limit, zero in the middle."""
    frame = Frame(220, 26, (-limit, limit), (0, 1), left=8, right=8, top=0, bottom=0)
    zero, a, b, x = (frame.x(v) for v in (0.0, max(low, -limit), min(high, limit), difference))
    parts = [
        Markup('<line class="grid" x1="{0}" x2="{1}" y1="13" y2="13"/>').format(
            _n(frame.x(-limit)), _n(frame.x(limit))
        ),
        Markup('<line class="zero" x1="{0}" x2="{0}" y1="1" y2="25"/>').format(_n(zero)),
        Markup('<line class="whisker" x1="{0}" x2="{1}" y1="13" y2="13"/>').format(_n(a), _n(b)),
        Markup('<path class="whisker" d="M{0} 8V18M{1} 8V18"/>').format(_n(a), _n(b)),
        Markup('<rect class="point" x="{0}" y="8.5" width="9" height="9" rx="1.5"/>').format(_n(x - 4.5)),
    ]
    return _svg(frame, f"{number(difference)}, interval {number(low)} to {number(high)}", parts, cls="chart strip")


def key(slot: int | None) -> Markup:
    """A legend's little line with its mark."""
    frame = Frame(26, 12, (0, 1), (0, 1))
    line = Markup('<line class="line {0}" x1="1" x2="25" y1="6" y2="6"/>').format(_class(slot))
    return _svg(frame, "", [line, _mark(13, 6, slot)], cls="key")


def _svg(frame: Frame, label: str, parts: Sequence[Markup], *, cls: str = "chart") -> Markup:
    body = Markup("").join(parts)
    role = Markup(' role="img" aria-label="{}"').format(label) if label else Markup(' aria-hidden="true"')
    size = Markup('viewBox="0 0 {0} {1}"').format(_n(frame.width), _n(frame.height))
    return Markup('<svg class="{0}" {1}{2}>{3}</svg>').format(cls, size, role, body)


def _y_axis(frame: Frame, marks: Sequence[float], *, digits: int | None = None) -> list[Markup]:
    places = _digits(marks) if digits is None else digits
    out = []
    for value in marks:
        y = frame.y(value)
        grid = Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>')
        out.append(grid.format(_n(frame.left), _n(frame.width - frame.right), _n(y)))
        out.append(_text(frame.left - 6, y + 3.5, number(value, places), anchor="end", cls="num"))
    return out


def _round_axis(frame: Frame, rounds: int) -> list[Markup]:
    every = max(1, math.ceil(rounds / 8))
    y = frame.height - frame.bottom
    labels = [_text(frame.x(r), y + 14, str(r), cls="num") for r in range(1, rounds + 1, every)]
    middle = (frame.left + frame.width - frame.right) / 2
    return [*labels, _text(middle, y + 28, "round", cls="axis-title")]


def _whisker_upward(frame: Frame, point: Point) -> list[Markup]:
    if point.low is None or point.high is None:
        return []
    x, a, b = frame.x(point.predicted), frame.y(point.low), frame.y(point.high)
    path = Markup('<path class="whisker" d="M{0} {3}V{4}M{1} {3}H{2}M{1} {4}H{2}"/>')
    return [path.format(_n(x), _n(x - 4), _n(x + 4), _n(a), _n(b))]


def _upward(frame: Frame, text: str) -> Markup:
    """The vertical axis' title, read from below."""
    x, y = 12, (frame.top + frame.height - frame.bottom) / 2
    tag = Markup(
        '<text x="{0}" y="{1}" text-anchor="middle" class="axis-title" transform="rotate(-90 {0} {1})">{2}</text>'
    )
    return tag.format(_n(x), _n(y), text)


def _share_axis(frame: Frame, marks: Sequence[float], title: str, *, digits: int) -> list[Markup]:
    y = frame.height - frame.bottom
    labels = [_text(frame.x(m), y + 16, number(m, digits), cls="num") for m in marks]
    middle = (frame.left + frame.width - frame.right) / 2
    return [*labels, _text(middle, y + 36, title, cls="axis-title")]


def _month_ticks(horizon_days: float) -> list[int]:
    months = horizon_days / MONTH
    every = next((m for m in (3, 6, 12, 24, 36, 60) if months / m <= 6), 120)
    return list(range(0, int(months + 0.01) + 1, every))


def _month_axis(frame: Frame, months: Sequence[int]) -> list[Markup]:
    y = frame.height - frame.bottom
    marks = [Markup('<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
        _n(frame.x(m * MONTH)), _n(y), _n(y + 4)) for m in months]  # fmt: skip
    labels = [_text(frame.x(m * MONTH), y + 17, str(m), cls="num") for m in months]
    middle = (frame.left + frame.width - frame.right) / 2
    return [*marks, *labels, _text(middle, y + 34, "months", cls="axis-title")]


def _kept(frame: Frame, kept: int) -> Markup:
    line = Markup('<line class="kept" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>')
    x = frame.x(kept)
    return line.format(_n(x), _n(frame.top - 6), _n(frame.height - frame.bottom))


def _series(frame: Frame, line: Line) -> Markup:
    """A polyline that breaks where a value is missing, with a mark at every value."""
    points = [(frame.x(i), frame.y(v)) if v is not None else None for i, v in enumerate(line.values, start=1)]
    path, pen = [], "M"
    for point in points:
        path += [f"{pen}{_n(point[0])} {_n(point[1])}"] if point else []
        pen = "L" if point else "M"
    drawn = Markup('<path class="line {0}" d="{1}"/>').format(_class(line.slot), "".join(path))
    marks = Markup("").join(_mark(*point, line.slot) for point in points if point)
    return Markup("<g><title>{0}</title>{1}{2}</g>").format(line.label, drawn, marks)


def _steps(frame: Frame, curve: Curve, name: str) -> Markup:
    d = f"M{_n(frame.x(0))} {_n(frame.y(1))}"
    for day, value in zip(curve.days, curve.survival, strict=True):
        d += f"H{_n(frame.x(day))}V{_n(frame.y(value))}"
    return Markup('<path class="risk-{0}" d="{1}"><title>{0} risk</title></path>').format(name, d)


def _band(frame: Frame, curve: Curve, name: str) -> Markup:
    upper = [(frame.x(curve.days[0]), frame.y(curve.high[0]))]
    lower = [(frame.x(curve.days[0]), frame.y(curve.low[0]))]
    for i, day in enumerate(curve.days[1:], start=1):
        upper += [(frame.x(day), frame.y(curve.high[i - 1])), (frame.x(day), frame.y(curve.high[i]))]
        lower += [(frame.x(day), frame.y(curve.low[i - 1])), (frame.x(day), frame.y(curve.low[i]))]
    d = "L".join(f"{_n(x)} {_n(y)}" for x, y in upper + lower[::-1])
    return Markup('<path class="band-{0}" d="M{1}Z"/>').format(name, d)


def _entering(curve: Curve, day: float) -> int:
    return next((n for d, n in zip(curve.days, curve.at_risk, strict=True) if d >= day - 0.5), 0)


def _mark(x: float, y: float, slot: int | None) -> Markup:
    """A mark per slot, so that colour is never the only cue."""
    if slot is None:
        return Markup('<circle class="mark pooled" cx="{0}" cy="{1}" r="3.4"/>').format(_n(x), _n(y))
    r = 2.9
    shapes = {
        "circle": f"M{_n(x - r)} {_n(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",
        "square": f"M{_n(x - r)} {_n(y - r)}h{2 * r}v{2 * r}h{-2 * r}Z",
        "up": f"M{_n(x)} {_n(y - 3.6)}l3.6 6.2h-7.2Z",
        "diamond": f"M{_n(x)} {_n(y - 4)}l4 4l-4 4l-4 -4Z",
        "down": f"M{_n(x)} {_n(y + 3.6)}l3.6 -6.2h-7.2Z",
        "cross": f"M{_n(x - 3)} {_n(y - 3)}l6 6m0 -6l-6 6",
        "bar": f"M{_n(x)} {_n(y - 4)}v8",
        "plus": f"M{_n(x - 3.6)} {_n(y)}h7.2m-3.6 -3.6v7.2",
    }
    shape = _MARKS[slot % len(_MARKS)]
    kind = "stroke" if shape in ("cross", "bar", "plus") else "mark"
    return Markup('<path class="{0} {1}" d="{2}"/>').format(kind, _class(slot), shapes[shape])


def _text(x: float, y: float, text: str, *, anchor: str = "middle", cls: str = "") -> Markup:
    tag = Markup('<text x="{0}" y="{1}" text-anchor="{2}" class="{3}">{4}</text>')
    return tag.format(_n(x), _n(y), anchor, cls, escape(text))


def _class(slot: int | None) -> str:
    if slot is None:
        return "pooled"
    return f"c{slot % COLOURS}" + (" again" if slot >= COLOURS else "")


def _digits(marks: Sequence[float]) -> int:
    return next((d for d in range(5) if all(abs(m - round(m, d)) < 1e-9 for m in marks)), 5)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
