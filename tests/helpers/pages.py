"""What README.md and docs/ print: their commands, links and headings, read as a person would."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = re.compile(r"\*(Takes|Needs) [^*]+\.\*")
FENCE = re.compile(r"```(\w*)(?: title=\"[^\"]+\")?")
INLINE = re.compile(r"`((?:python -m (?:server|client|simulations) |make |compare |run )[^`]*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


class Block(NamedTuple):
    """One fenced block; ``mark`` is the line above it that says why it is not run, empty where it is."""

    language: str
    lines: list[str]
    mark: str
    runs: bool  # a block of Python that a test runs


def name_of(page: Path) -> str:
    """A page's name below the checkout."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    above, inside, language = "", None, ""
    for line in page.read_text().splitlines():
        fence = FENCE.fullmatch(line.strip())
        if inside is None and fence:
            inside, language = [], fence[1]
        elif inside is not None and line.strip() == "```":
            yield Block(language, inside, above if MARK.fullmatch(above) else "", above == "<!-- run -->")
            inside, above = None, ""
        elif inside is not None:
            inside.append(line)
        elif line.strip():
            above = line.strip()


def commands(block: Block) -> list[list[str]]:
    """The command lines of a block without a language, as words."""
    lines = "\n".join(block.lines).replace("\\\n", " ").splitlines()  # a line may go on after a backslash
    return [shlex.split(line) for line in lines if line.strip()] if not block.language else []


def inline_commands(page: Path) -> list[list[str]]:
    """Commands between backticks in running text that are whole: none with an ellipsis."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    found = [shlex.split(command) for command in INLINE.findall(text) if "…" not in command]
    return [["python", "-m", "simulations", *words] if words[0] in ("compare", "run") else words for words in found]


def links(page: Path) -> list[str]:
    """Targets of links and pictures inside the checkout."""
    text = re.sub(r"(?ms)^```.*?^```|`[^`]*`", "", page.read_text())
    found = [first or second for first, second in LINK.findall(text)]
    return [target for target in found if not target.startswith(("http:", "https:", "mailto:"))]


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", page.read_text()))
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}
