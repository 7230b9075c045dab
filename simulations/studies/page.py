"""What a study leaves: tables, notes and pictures as study.json, tables.md and one self-contained report.html."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

from common.files import write_bytes, write_json

STYLE = Path(__file__).resolve().parents[2] / "server" / "report" / "style.css"

Value = str | int | float | None


@dataclass
class Table:
    """One table; cells are shown as they are, floats with three digits, None as a dash."""

    title: str
    columns: list[str]
    rows: list[list[Value]]
    note: str = ""  # what a reader must know to weigh the figures


@dataclass
class Picture:
    """A figure with its caption; ``svg`` is drawn inline, ``png`` holds a file's bytes."""

    title: str
    caption: str
    svg: str = ""
    png: bytes = b""


@dataclass
class Page:
    """A study's result."""

    title: str
    lead: str  # what was compared, on which data (synthetic or real), how often
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)  # everything a later table may want, as JSON
    seconds: float = 0.0
    command: str = ""


def write_page(folder: Path, page: Page) -> Path:
    """Write study.json, tables.md and report.html; the same page gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = asdict(page)
    plain.pop("pictures")
    write_json(folder / "study.json", json.loads(json.dumps(plain)))
    write_bytes(folder / "tables.md", markdown(page).encode())
    path = folder / "report.html"
    write_bytes(path, html(page).encode())
    return path


def markdown(page: Page) -> str:
    """The page as Markdown, for docs/results/."""
    parts = [f"## {page.title}", page.lead, f"`{page.command}` ({page.seconds / 60:.1f} min)"]
    for table in page.tables:
        parts += [f"### {table.title}", _markdown_table(table), *([table.note] if table.note else [])]
    parts += ["\n".join(f"- {note}" for note in page.notes)] if page.notes else []
    return "\n\n".join(parts) + "\n"


def html(page: Page) -> str:
    """The page as one file that a browser opens without a network."""
    body = [f"<header><h1>{escape(page.title)}</h1><div class='lead'><p>{escape(page.lead)}</p></div></header><main>"]
    body += [_html_table(table) for table in page.tables]
    body += [_html_picture(picture) for picture in page.pictures]
    if page.notes:
        body.append("<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in page.notes) + "</ul>")
    body.append(
        f"<h2>Again</h2><pre>{escape(page.command)}</pre><p class='about'>{page.seconds / 60:.1f} min</p></main>"
    )
    head = (
        f"<meta charset='utf-8'><title>{escape(page.title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style>"
    )
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n"


def console_table(table: Table):
    """The table for a terminal, through rich."""
    from rich.table import Table as RichTable

    drawn = RichTable(*table.columns, title=table.title, caption=table.note or None)
    for row in table.rows:
        drawn.add_row(*(shown(value) for value in row))
    return drawn


def shown(value: Value) -> str:
    """A cell as people read it: three digits and a real minus sign for floats, a dash for None."""
    if value is None:
        return "—"
    return f"{value:.3f}".replace("-", "−") if isinstance(value, float) else str(value)


def _markdown_table(table: Table) -> str:
    lines = [_line(table.columns), _line(["---"] * len(table.columns))]
    return "\n".join(lines + [_line([shown(value) for value in row]) for row in table.rows])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html_table(table: Table) -> str:
    words = [any(_is_words(row[column]) for row in table.rows) for column in range(len(table.columns))]
    sides = [" class='left'" if left else "" for left in words]
    head = "".join(f"<th scope='col'{side}>{escape(c)}</th>" for c, side in zip(table.columns, sides, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{side}>{escape(shown(v))}</td>" for v, side in zip(row, sides, strict=True)) + "</tr>"
        for row in table.rows
    )
    note = f"<p class='about'>{escape(table.note)}</p>" if table.note else ""
    body = f"<div class='scroll'><table class='data'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    return f"<h2>{escape(table.title)}</h2>{note}{body}"


def _is_words(value: Value) -> bool:
    """Whether a cell holds words, which stand on the left; numbers stand on the right."""
    return isinstance(value, str) and value[:1].isalpha()


def _html_picture(picture: Picture) -> str:
    image = picture.svg
    if picture.png:
        data = base64.b64encode(picture.png).decode("ascii")
        image = f"<img alt='{escape(picture.title)}' src='data:image/png;base64,{data}'>"
    return f"<h2>{escape(picture.title)}</h2><figure>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>"
