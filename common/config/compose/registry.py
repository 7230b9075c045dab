"""What Hydra can choose from beside the files of ``configs/``: schemas, presets, and what another package adds.

A package that sits on top of this one (`simulations`) adds its groups through `extend`: neither a hospital nor the
coordinator imports it, and composing works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigStore

from common import plugins
from common.config.adapter import PARTS, Adapter
from common.config.compose.presets import presets
from common.config.federation import FEDERATIONS
from common.config.run import BackboneSpec, Data, Run, Runtime
from common.config.step import METHODS, Step
from common.config.task import TASKS
from common.errors import ConfigError


class Node(NamedTuple):
    """One entry of the config store.

    Args:
        node: a dataclass, or a mapping with ``defaults`` as a YAML file would have it.
        package: where its values go; None: its group's path.
    """

    group: str
    name: str
    node: Any
    package: str | None = None


@dataclass(frozen=True)
class Extension:
    """What a package on top adds to a run.

    Args:
        nodes: its groups; called once an override chooses ``study``, since they may be slow to import.
        complete: gives the values that it owns in a composed run their types.
        problems: its rules, as finished sentences.
    """

    nodes: Callable[[], Iterable[Node]]
    complete: Callable[[Run], None]
    problems: Callable[[Run], Iterable[str]]


EXTENSIONS: list[Extension] = []
SCHEMAS: dict[str, type] = {
    "adapter": Adapter,
    "backbone": BackboneSpec,
    "data": Data,
    "runtime": Runtime,
    "step": Step,
}
KINDS: dict[str, Mapping[str, type]] = {"task": TASKS, "part": PARTS, "method": METHODS, "federation": FEDERATIONS}
STUDY = "study="


def extend(extension: Extension) -> None:
    """Add a package's groups; once is enough."""
    if extension not in EXTENSIONS:
        EXTENSIONS.append(extension)


def register(overrides: Sequence[str]) -> None:
    """Fill the config store with all that ``overrides`` may choose from.

    Raises:
        ConfigError: they choose a study, and nothing here knows one.
    """
    store = ConfigStore.instance()
    store.store(name="schema", node=Run)
    for name, schema in SCHEMAS.items():
        store.store(group="schema", name=name, node=schema)
    for group, registry in KINDS.items():
        for kind, schema in registry.items():
            store.store(group=f"schema/{group}", name=kind, node=schema)
    for group, choices in presets().items():
        for name, node in choices.items():
            store.store(group=group, name=name, node=node)
    for group, name, node in plugins.choices():
        store.store(group=group, name=name, node=node)
    chosen = [override for override in overrides if override.startswith(STUDY) and override != f"{STUDY}null"]
    if chosen and not EXTENSIONS:
        raise ConfigError(
            f"{chosen[-1]} is a table of simulations, which this process does not know; use python -m simulations "
            f"compare {chosen[-1]}."
        )
    for node in (node for extension in EXTENSIONS if chosen for node in extension.nodes()):
        store.store(group=node.group, name=node.name, node=node.node, package=node.package)


def complete(run: Run) -> None:
    """Let each extension type what it owns in a composed run.

    Raises:
        ConfigError: the run has faults, and nothing here makes any.
    """
    for extension in EXTENSIONS:
        extension.complete(run)
    if any(isinstance(fault, dict) for fault in run.faults.values()):
        raise ConfigError(
            f"faults has {', '.join(sorted(run.faults))}; faults happen in simulations only: use python -m simulations "
            "run, or leave them out."
        )
