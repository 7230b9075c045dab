"""YAML whose words stay the words that were typed: ``NO`` is a code and no False, ``1.10`` no 1.1, ``007`` no 7.

For files that people write by hand, where a name, a code or a table's cell may look like a number. Whoever needs a
number or a switch converts it; nothing (empty, ``null``, ``~``) stays nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


class _Text(yaml.SafeLoader):
    """Every scalar as text; a key that stands twice is an error, not the later of two values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if key.tag != _KEPT[1]]
        double = sorted({str(key) for key in written if written.count(key) > 1})
        if double:
            raise yaml.constructor.ConstructorError(None, None, f"'{double[0]}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Text.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_text(path: Path | str) -> Any:
    """What a YAML file says. Raises OSError, UnicodeDecodeError or yaml.YAMLError."""
    return yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader=_Text)  # a SafeLoader
