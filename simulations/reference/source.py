"""What the code says of itself: first sentences of modules, fields of dataclasses with their comments, literals."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "client", "server", "simulations")


class Field(NamedTuple):
    """One field of a dataclass as written: type and default are source text."""

    name: str
    type: str
    default: str
    comment: str


def modules(package: str) -> list[Path]:
    """A package's Python files in name order, each folder's `__init__` first."""
    found = (ROOT / package).rglob("*.py")
    return sorted(found, key=lambda path: (path.parent.parts, path.name != "__init__.py", path.name))


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", text)[0].removesuffix(".")


def fields(path: Path, name: str) -> list[Field]:
    """The fields of the dataclass ``name`` in a file, with the comment that stands behind each."""
    text = path.read_text()
    lines = text.splitlines()
    found = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == name)
    return [_field(node, lines) for node in found.body if isinstance(node, ast.AnnAssign)]


def _field(node: ast.AnnAssign, lines: list[str]) -> Field:
    assert isinstance(node.target, ast.Name) and node.end_lineno is not None
    comment = lines[node.end_lineno - 1][node.end_col_offset or 0 :].partition("#")[2].strip()
    default = ast.unparse(node.value) if node.value else ""
    default = re.sub(r"field\(default_factory=(?:lambda: )?(.*)\)", r"\1", default)
    empty = {"dict": "{}", "list": "[]"}
    return Field(node.target.id, ast.unparse(node.annotation), empty.get(default, default), comment)


def calls(method: str) -> Iterator[tuple[Path, ast.FunctionDef, ast.Call]]:
    """Every call ``….method("literal", …)`` in the four packages, with the function that it stands in."""
    for package in PACKAGES:
        for path in modules(package):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef):
                    yield from ((path, function, call) for call in _calls_in(function, method))


def _calls_in(function: ast.FunctionDef, method: str) -> Iterator[ast.Call]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield node
