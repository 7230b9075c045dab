"""What Hydra can choose from beside the files of ``configs/``: schemas, presets, and what another package adds.

A package that sits on top of this one (`simulations`) adds its groups through `extend`: neither a hospital nor the
coordinator imports it, and composing works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig, OmegaConf

from common import plugins
from common.config.adapter import PARTS, Adapter
from common.config.compose.presets import presets
from common.config.federation import FEDERATIONS
from common.config.methods import METHODS
from common.config.privacy import PRIVACIES
from common.config.run import BackboneSpec, Data, Run, Runtime
from common.config.step import Step
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
KINDS: dict[str, Mapping[str, type]] = {"task": TASKS, "part": PARTS, "method": METHODS, "federation": FEDERATIONS,
                                     "privacy": PRIVACIES}  # fmt: skip
STUDY = "study="


def extend(extension: Extension) -> None:
    """Add a package's groups; once is enough."""
    if extension not in EXTENSIONS:
        EXTENSIONS.append(extension)


def register(overrides: Sequence[str]) -> bool:
    """Fill the config store with all that ``overrides`` may choose from; whether that includes studies.

    Raises:
        ConfigError: they choose a study, and nothing here knows one.
    """
    _store(Node("", "schema", Run))
    for name, schema in SCHEMAS.items():
        _store(Node("schema", name, schema))
    for group, registry in KINDS.items():
        for kind, schema in registry.items():
            _store(Node(f"schema/{group}", kind, schema))
    for group, choices in presets().items():
        for name, node in choices.items():
            _store(Node(group, name, node))
    for group, name, node in plugins.choices():
        _store(Node(group, name, node))
    chosen = [override for override in overrides if override.startswith(STUDY) and override != f"{STUDY}null"]
    if chosen and not EXTENSIONS:
        raise ConfigError(
            f"{chosen[-1]} is a table of simulations, which no coordinator runs; plan it with python -m simulations "
            f"plan {chosen[-1]}, and run it with python -m simulations compare {chosen[-1]}."
        )
    for node in (node for extension in EXTENSIONS if chosen for node in extension.nodes()):
        _store(node)
    return bool(chosen)


class _Chosen(ConfigNode):
    """An entry of Hydra's store whose options are typed once they are chosen: to type all takes half of a plan."""

    _node: Any

    @property
    def node(self) -> DictConfig:
        if not isinstance(self._node, DictConfig):
            self._node = OmegaConf.structured(self._node)
        return self._node

    @node.setter
    def node(self, value: Any) -> None:
        self._node = value


def _store(node: Node) -> None:
    """What `ConfigStore.store` does, without typing the options yet."""
    place = ConfigStore.instance().repo
    for word in filter(None, node.group.split("/")):
        place = place.setdefault(word, {})
    name = f"{node.name}.yaml"
    place[name] = _Chosen(name=name, node=node.node, group=node.group, package=node.package, provider=None)


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
            "plan and python -m simulations run, or leave them out."
        )
