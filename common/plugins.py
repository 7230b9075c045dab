"""Plugins: own backbones, adapter parts, tasks, methods, rules, studies and readers, from files named on this machine.

A plugin is a Python file, or a folder with an ``__init__.py``, that calls the functions below as it is imported. Only a
local configuration names it (a simulation's command line, ``center.yaml``, ``server.yaml``): a step that arrives over
the network says kinds, never files, and a kind that is not here is refused as unknown. What ships stays a dict literal
behind a `Registry`; a plugin adds to it and never takes a shipped name's place.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from common.errors import ConfigError

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
INHERITED = "FEDGRAFT_PLUGINS"  # set for the processes that this one starts; nothing from the network reaches it
MEMBERS = "common/own"  # where a bundle lists plugins, among the file types that it may hold; nothing runs from there
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
ROLES = ("decoder", "fusion", "mlp", "patch_embed", "skip")

ADDED: dict[str, dict[str, dict[str, Any]]] = {}  # group -> kind -> aspect -> what a plugin gave
SHIPPED: dict[str, set[str]] = {}  # group -> kinds, as far as its registries are imported
LOADED: dict[Path, str] = {}  # plugin -> digest of its files


class Registry(Mapping[str, T], Generic[T]):
    """What ships, by kind, and after it what plugins added. The first question loads what this process inherited.

    Args:
        aspect: which of the things that a plugin gave for a kind: ``spec``, ``build``.
    """

    def __init__(self, group: str, aspect: str, shipped: dict[str, T]):
        self.group, self.aspect, self.shipped = group, aspect, shipped
        SHIPPED.setdefault(group, set()).update(shipped)

    def __getitem__(self, kind: str) -> T:
        return self.shipped[kind] if kind in self.shipped else self._added()[kind][self.aspect]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.shipped, *self._added()])

    def __len__(self) -> int:
        return len(self.shipped) + len(self._added())

    def __contains__(self, kind: object) -> bool:
        return kind in self.shipped or kind in self._added()

    def _added(self) -> Mapping[str, dict[str, Any]]:
        load_inherited()
        return ADDED.get(self.group, {})


# ------------------------------------------------------------------------------------------------- what a plugin calls


def backbone(
    kind: str,
    build: Callable[..., Any],
    *,
    load: Callable[[Any, str | Path], None] | None = None,
    example: str = "",
    reads: Sequence[str] = (),
) -> None:
    """A frozen model: ``backbone=KIND``. Arguments as of `common.backbones.kind.Kind`; ``load`` reads ``weights``."""
    from common.backbones.kind import Kind

    _add("backbone", kind, build=Kind(build, load, example, frozenset({*reads, *(("weights",) if load else ())})))


def adapter_part(kind: str, spec: type, build: Callable[..., Any], *, role: str) -> None:
    """An adapter part: ``adapter=KIND`` or a part of that kind.

    Args:
        spec: its options; a dataclass that inherits from those of the shipped part whose place it takes.
        build: (spec, `common.adapters.Surroundings`) to a module with that part's call.
        role: that shipped kind: decoder, fusion, mlp, patch_embed or skip.
    """
    if role not in ROLES:
        raise ConfigError(f"Adapter part '{kind}' has role '{role}'; it can be {', '.join(ROLES)}.")
    _add("adapter part", kind, spec=_spec(spec, kind), build=build, role=role)


def task(
    kind: str, spec: type, build: Callable[..., Any], *, usable: Callable[..., bool], target: Callable[..., Any]
) -> None:
    """A task: ``task@steps.NAME.task=KIND``.

    Args:
        build: (spec, known) to a `common.tasks.base.Task`.
        usable: (case, step): whether the case has the target.
        target: (case, prepared, step) to named tensors; ``prepared`` is None where no image is asked for.
    """
    _add("task", kind, spec=_spec(spec, kind), build=build, target=(usable, target))


def method(kind: str, spec: type, build: Callable[..., Any]) -> None:
    """A method of local training, an entry of ``steps.NAME.methods``; ``build``: (spec, vault) to a `Method`."""
    _add("method", kind, spec=_spec(spec, kind), build=build)


def rule(kind: str, spec: type, aggregate: Callable[..., Any]) -> None:
    """An aggregation rule: ``federation=KIND``; its contract is at the top of `server.aggregation`.

    Args:
        spec: its options; inherits from `common.config.federation.Federation`.
    """
    _add("aggregation rule", kind, spec=_spec(spec, kind), build=aggregate)


def study(kind: str, spec: type, run: Callable[..., Any]) -> None:
    """A table of runs: ``study=KIND``; ``run``: (run, overrides, say) to a `simulations.studies.page.Page`."""
    _add("study", kind, spec=_spec(spec, kind), build=run)


def reader(kind: str, read: Callable[..., Any]) -> None:
    """A reader of a data folder, which a ``layout`` may name; `client.data.layouts` says what it gets and gives."""
    _add("reader", kind, build=read)


# ---------------------------------------------------------------------------------------------------------- loading


@dataclass(frozen=True)
class Source:
    """A plugin's files by the name that they have in a release, its first one and their digest."""

    path: Path
    files: Mapping[str, Path]
    digest: str


def load(names: Sequence[str], *, folder: Path) -> list[Path]:
    """Import plugins, each once in a process; their paths.

    Args:
        names: modules (``my_module``) or paths (``folder/my_module.py``) from ``folder`` or the checkout.

    Raises:
        ConfigError: no such file, it cannot be imported, it adds nothing, or a name that exists.
    """
    sources = [find(name, folder=folder) for name in names]
    for source in sources:
        _load(source)
    known = [*filter(None, os.environ.get(INHERITED, "").split(os.pathsep)), *(str(s.path) for s in sources)]
    if sources:
        os.environ[INHERITED] = os.pathsep.join(dict.fromkeys(known))
    return [source.path for source in sources]


def load_inherited() -> None:
    """Import what the process that started this one had loaded."""
    wanted = [Path(path) for path in os.environ.get(INHERITED, "").split(os.pathsep) if path]
    if not _loading and any(path not in LOADED for path in wanted):
        load([str(path) for path in wanted], folder=ROOT)


def find(name: str, *, folder: Path) -> Source:
    """The files of a plugin, not yet imported. Raises ConfigError where there is none."""
    relative = Path(name) if name.endswith(".py") or os.sep in name else Path(*name.split("."))
    for place in (folder, ROOT):
        path = (place / relative).expanduser()
        for candidate in (path, path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file() and candidate.suffix == ".py":
                return _source(candidate.resolve())
    places = " or ".join(dict.fromkeys((str(folder.resolve()), str(ROOT))))
    raise ConfigError(
        f"There is no plugin '{name}': {places} has neither a Python file nor a folder with an __init__.py of that "
        "name; name its path, as in plugins=[folder/my_module.py]."
    )


def files_of(names: Sequence[str], *, folder: Path) -> dict[str, Path]:
    """Name in a release -> file, of plugins that need not be imported for it."""
    return {name: path for plugin in names for name, path in find(plugin, folder=folder).files.items()}


def loaded_files() -> dict[str, Path]:
    """The same of the plugins that this process has loaded."""
    return {name: path for plugin in LOADED for name, path in _source(plugin).files.items()}


def not_loaded(names: Sequence[str]) -> list[str]:
    """Those that this process has not loaded; nothing is imported."""
    return [name for name in names if find(name, folder=Path.cwd()).path not in LOADED]


def loaded_digests() -> tuple[tuple[str, str], ...]:
    """What this process's answers depend on beside the checkout."""
    return tuple(sorted((str(path), digest) for path, digest in LOADED.items()))


def choices() -> Iterator[tuple[str, str, Any]]:
    """(group, name, node) of every choice that plugins add to a command line, for Hydra's store."""
    load_inherited()
    groups = {"task": "task", "aggregation rule": "federation", "study": "study"}
    for group, ours in groups.items():
        yield from ((ours, kind, given["spec"]) for kind, given in ADDED.get(group, {}).items())
    for kind, given in ADDED.get("adapter part", {}).items():
        yield "adapter", kind, {"parts": {given["role"]: given["spec"]()}}
    for kind in ADDED.get("backbone", {}):
        yield "backbone", kind, {"defaults": ["/schema/backbone@_here_"], "kind": kind}


_loading: list[Source] = []


def _source(path: Path) -> Source:
    folder = path.parent if path.name == "__init__.py" else None
    found = sorted(folder.rglob("*.py")) if folder else [path]
    base = (folder or path).parent
    files = {
        f"{MEMBERS}/{file.relative_to(base).as_posix()}": file for file in found if "__pycache__" not in file.parts
    }
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name}|{hashlib.sha256(file.read_bytes()).hexdigest()}|".encode())
    return Source(path, files, digest.hexdigest())


def _load(source: Source) -> None:
    if LOADED.get(source.path, source.digest) != source.digest:
        raise ConfigError(f"The plugin {source.path} changed since this process loaded it; start the command again.")
    if source.path in LOADED:
        return
    before = {group: dict(kinds) for group, kinds in ADDED.items()}
    _loading.append(source)
    try:
        _execute(source)
        if before == ADDED:
            raise ConfigError(
                f"The plugin {source.path} adds nothing; call a function of common.plugins in it, such as "
                "plugins.rule(...), as it is imported."
            )
    except Exception as error:
        ADDED.clear()
        ADDED.update(before)
        if isinstance(error, ConfigError):
            raise
        what = f"{type(error).__name__}{_line_in(error, source)}: {error}"
        raise ConfigError(f"The plugin {source.path} cannot be imported ({what}); correct it.") from error
    finally:
        _loading.pop()
    LOADED[source.path] = source.digest


def _execute(source: Source) -> None:
    folder = source.path.parent if source.path.name == "__init__.py" else None
    name = f"fedgraft_plugin_{(folder or source.path).stem}"
    spec = importlib.util.spec_from_file_location(
        name, source.path, submodule_search_locations=[str(folder)] if folder else None
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)


def _line_in(error: BaseException, source: Source) -> str:
    """Where in the plugin an exception came from."""
    files, line, frame = {str(path) for path in source.files.values()}, "", error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename in files:
            line = f" in line {frame.tb_lineno}"
        frame = frame.tb_next
    return line


def _add(group: str, kind: str, **given: Any) -> None:
    who = f"The plugin {_loading[-1].path}" if _loading else "A plugin"
    if not NAME.fullmatch(kind):
        raise ConfigError(f"{who} adds a {group} called '{kind}'; write small letters, digits and _, a letter first.")
    if kind in SHIPPED.get(group, ()) or kind in ADDED.get(group, {}):
        raise ConfigError(f"{who} adds a {group} called '{kind}', which exists already; choose another name.")
    ADDED.setdefault(group, {})[kind] = given


def _spec(spec: type, kind: str) -> type:
    if not is_dataclass(spec) or {f.name: f.default for f in fields(spec)}.get("kind") != kind:
        raise ConfigError(f"The options of '{kind}' must be a dataclass with the field kind: str = \"{kind}\".")
    return spec
