"""docs/developer/modules.md: every module with the first sentence of its docstring, folder by folder."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from simulations.reference.markdown import generated, table
from simulations.reference.source import PACKAGES, ROOT, first_sentence, modules

INTRODUCTION = (
    "Every folder answers one question, in the line under its name; every file has one subject, in its first\n"
    "sentence. How they work together is in [the house](house.md).\n\n"
)


def modules_page() -> str:
    """The page."""
    text = generated("Modules", "each module's docstring") + INTRODUCTION
    for package in PACKAGES:
        for folder, paths in groupby(modules(package), key=lambda path: path.parent):
            text += _folder(folder, list(paths))
    return text.rstrip("\n") + "\n"


def _folder(folder: Path, paths: list[Path]) -> str:
    name = folder.relative_to(ROOT)
    level = "##" if len(name.parts) == 1 else "###"
    said = [path for path in paths if path.name == "__init__.py"]
    head = f"{level} {name}/\n\n" + "".join(f"{first_sentence(path)}.\n\n" for path in said)
    rows = [(f"`{path.name}`", first_sentence(path)) for path in paths if path not in said]
    return head + (table(("module", "holds"), rows) + "\n" if rows else "")
