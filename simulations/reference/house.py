"""docs/developer/house.svg: the house as a drawing, with the folders that the four packages have today.

A package may import what stands below it, never beside it: the roof rests on the two rooms, those on the ground floor.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from simulations.reference.source import ROOT

WIDTH, LINE, PAD, BIG = 640, 26, 18, 22
COLORS = {"simulations": "#dbe7fb", "client": "#d8f0e1", "server": "#fbe8cf", "common": "#e7e3f4"}
SAYS = {
    "simulations": "whole federations on one machine",
    "client": "a hospital; opens patient files",
    "server": "the coordinator; opens none",
    "common": "what both sides agree on",
}


def house_drawing() -> str:
    """The drawing as SVG, on a card of its own so that it reads on white and on dark."""
    rooms = {package: folders(package) for package in COLORS}
    roof, middle = _height(rooms["simulations"], 4), max(_height(rooms[p], 2) for p in ("client", "server"))
    ground = _height(rooms["common"], 4)
    top, half = 60, (WIDTH - 3 * PAD) // 2
    height = top + roof + middle + ground + 4 * PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">',
        "<title>The four packages, each resting on those that it may import</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="14" fill="#ffffff"/>',
        f'<path d="M{PAD} {top} L{WIDTH // 2} 14 L{WIDTH - PAD} {top} Z" fill="{COLORS["simulations"]}"/>',
        *_room("simulations", rooms["simulations"], PAD, top, WIDTH - 2 * PAD, roof, columns=4),
        *_room("client", rooms["client"], PAD, top + roof + PAD, half, middle, columns=2),
        *_room("server", rooms["server"], 2 * PAD + half, top + roof + PAD, half, middle, columns=2),
        *_room("common", rooms["common"], PAD, top + roof + middle + 2 * PAD, WIDTH - 2 * PAD, ground, columns=4),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def folders(package: str) -> list[str]:
    """Names of a package's folders of code."""
    return sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))


def _height(names: list[str], columns: int) -> int:
    return 2 * PAD + 2 * LINE + LINE * -(-len(names) // columns)


def _room(name: str, names: list[str], left: int, top: int, width: int, height: int, *, columns: int) -> Iterable[str]:
    step = (width - 2 * PAD) // columns
    yield f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="{COLORS[name]}"/>'
    yield _text(name + "/", left + PAD, top + PAD + 12, BIG, "700")
    yield _text(SAYS[name], left + PAD, top + PAD + 12 + LINE, 17, "400")
    for number, folder in enumerate(names):
        row, column = divmod(number, columns)
        yield _text(folder, left + PAD + column * step, top + PAD + 14 + LINE * (row + 2), 16, "600")


def _text(text: str, x: int, y: int, size: int, weight: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="#1d2733">{escape(text)}</text>'
