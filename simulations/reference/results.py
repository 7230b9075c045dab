"""docs/reference/results.md: results.json, field by field, from its JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from simulations.reference.markdown import generated, table
from simulations.reference.source import ROOT

SCHEMA = ROOT / "server/report/results.schema.json"
INTRODUCTION = (
    "Every run, comparison and study leaves a `results.json` in its folder; the schema is\n"
    "`server/report/results.schema.json`. A dot goes into an object, `[]` into a list, `*` stands for any key.\n\n"
)


def results_page() -> str:
    """The page."""
    schema = json.loads(SCHEMA.read_text())
    rows = [(f"`{path}`", kind, must, meaning) for path, kind, must, meaning in _walk(schema, "")]
    head = generated("results.json", "server/report/results.schema.json") + INTRODUCTION
    return head + table(("field", "type", "always there", "meaning"), rows)


def _walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str, str]]:
    required = set(schema.get("required", ()))
    children = dict(schema.get("properties", {}))
    if isinstance(schema.get("additionalProperties"), dict):
        children["*"] = schema["additionalProperties"]
    for name, child in children.items():
        here = f"{path}.{name}" if path else name
        yield here, _type(child), "yes" if name in required else "", child.get("description", "")
        yield from _walk(child, here)
        if "items" in child:
            yield from _walk(child["items"], here + "[]")


def _type(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"{schema['const']}"
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kinds = schema.get("type", "any")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)
