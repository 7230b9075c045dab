"""DESIGN's decisions 1-4 hold: plain packages, imports one way, patient files behind client/, Flower confined."""

from __future__ import annotations

import ast
import importlib.metadata
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "common": {"common"},
    "client": {"client", "common"},
    "server": {"server", "common"},
    "simulations": {"simulations", "client", "server", "common"},
}
FLOWER = {
    "server/app.py", "server/centers/federation.py", "server/learning/replies.py", "server/learning/rounds.py",
    "server/learning/strategy.py",
    "client/app.py", "common/protocol/wire.py", "common/protocol/arrays.py", "common/protocol/handed.py",
    "simulations/virtual/local_grid.py",
    # A real deployment: Flower's tasks run our own code, its control API is ours alone, arrays travel packed.
    "common/runtime/executor.py", "common/protocol/packing.py", "client/node/executor.py",
    "server/deploy/executor.py", "server/centers/packed_grid.py", "server/deploy/control.py",
}  # fmt: skip
# Runs start the two apps: these build a Context or read Flower's version, and speak to no Grid.
# Faults are built into messages on their way.
FLOWER_EDGE = {
    "simulations/virtual/federate.py": {"flwr.app"},
    "simulations/virtual/faults.py": {"flwr.app"},
    # The bench compares with a loop of Flower's own.
    "simulations/benchmarks/peers.py": {"flwr.app", "flwr.clientapp", "flwr.serverapp.strategy"},
    # A node that stopped signs itself off at the SuperLink; a bundle is built anew to see whether it is the release's.
    "client/node/node.py": {
        "flwr.proto.fleet_pb2",
        "flwr.supercore.interceptors",
        "flwr.supernode.fleet_http_client",
        "flwr.supernode.node_auth_http_interceptor",
    },
    # Flower's own SuperNode, started so that every answer of the coordinator leaves a mark.
    "client/node/supernode.py": {"flwr.supernode.cli", "flwr.supernode.fleet_http_client"},
    "common/runtime/release.py": {"flwr.cli.build"},
}
MOST_MODULES = 14  # side by side in a folder; commands/ has one for each command
OPENS_FILES = {"nibabel", "pydicom", "SimpleITK"}
SOURCES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in SOURCES}


@dataclass(frozen=True)
class Facts:
    """What a source says.

    Args:
        imports: every module that it imports, at its top or inside a function.
        own: our modules among them; `from package import module` is the module. What only a type checker imports is
            left out: nothing is loaded for it.
        classes: by name, how many lines each has.
    """

    imports: frozenset[str]
    own: frozenset[str]
    classes: dict[str, int]
    has_docstring: bool


@cache
def facts_of(path: Path) -> Facts:
    """A source is parsed once for all tests."""
    tree = ast.parse(path.read_text())
    nodes = [*ast.walk(tree)]
    for_types = [n for n in nodes if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    unloaded = {id(inner) for block in for_types for inner in ast.walk(block)}
    imports: set[str] = set()
    own: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found = named = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found = {node.module}
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            named = {name if name in MODULES else node.module for name in names}
        else:
            continue
        imports |= found
        own |= set() if id(node) in unloaded else named & MODULES
    classes = {n.name: (n.end_lineno or 0) - n.lineno for n in nodes if isinstance(n, ast.ClassDef)}
    return Facts(frozenset(imports), frozenset(own - {module_of(path)}), classes, bool(ast.get_docstring(tree)))


def roots_of(path: Path) -> set[str]:
    return {module.split(".")[0] for module in facts_of(path).imports}


def test_imports_point_one_way():
    foreign = {
        name_of(path): sorted(wrong)
        for path in SOURCES
        if (wrong := (roots_of(path) & set(ALLOWED)) - ALLOWED[path.relative_to(ROOT).parts[0]])
    }
    assert foreign == {}


def test_flower_stays_in_its_files():
    strays = {
        name_of(path): sorted(wrong)
        for path in SOURCES
        if name_of(path) not in FLOWER
        and (
            wrong := {m for m in facts_of(path).imports if m.split(".")[0] == "flwr"}
            - FLOWER_EDGE.get(name_of(path), set())
        )
    }
    assert strays == {}


def test_only_the_client_and_the_phantom_know_image_files():
    sides = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("common", "server")]
    assert {name_of(path): sorted(found) for path in sides if (found := roots_of(path) & OPENS_FILES)} == {}


def test_no_source_is_a_toy_or_a_god():
    for path in SOURCES:
        for name, length in facts_of(path).classes.items():
            assert length < 320, f"class {name} in {name_of(path)} has {length} lines"


def test_every_module_says_what_it_is():
    silent = [name_of(path) for path in SOURCES if not facts_of(path).has_docstring]
    assert silent == []


def test_installing_installs_dependencies_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"] == []
    for name in ALLOWED:
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.distribution(name)


def test_component_references_name_plain_assignments():
    components = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    for reference in components.values():
        module, name = reference.split(":")
        tree = ast.parse((ROOT / Path(*module.split("."))).with_suffix(".py").read_text())
        assigned = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
        assert name in assigned, f"{reference}: flwr build looks for a plain '{name} = ...'"


def test_no_config_names_code():
    assert not [path for path in (ROOT / "configs").rglob("*.yaml") if "_target_" in path.read_text()]


def test_no_modules_import_each_other_in_a_circle():
    graph = {module_of(path): facts_of(path).own for path in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"These import each other in a circle: {' -> '.join(reversed(error.args[1]))}")


def test_no_folder_holds_more_modules_than_one_can_look_over():
    counts = Counter(path.parent for path in SOURCES if path.name not in ("__init__.py", "__main__.py"))
    counted = {name_of(folder): n for folder, n in counts.items() if folder.name != "commands"}
    crowded = {name: n for name, n in counted.items() if n > MOST_MODULES}
    assert crowded == {}, "make a package of those that belong together"
