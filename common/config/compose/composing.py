"""The file that speaks to Hydra: defaults lists, then the command line's values, with every misspelling told at once.

Hydra resolves which files a run is made of. They are merged here, each into its own place (Hydra merges each into the
whole, which takes five times as long), and the values of the command line are set one by one: a key that no option has
is refused with the nearest one, with a leading ``+`` too, so that a typo never passes.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from hydra import initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import DefaultsList, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from common.config.compose.short import FOR_EVERY_STEP
from common.errors import ConfigError, suggestion

WORDS = {"Boolean": "true or false", "Float": "a number", "Integer": "a whole number", "String": "a word"}
NO_CHOICE = ("deploy", "hydra", "mapping", "method", "schema")  # folders that a run chooses nothing from


@dataclass(frozen=True)
class Stored:
    """What stands in Hydra's ConfigStore beside the groups that are always there: files are merged once for each.

    Args:
        plugins: those loaded, by path and digest.
        studies: whether another package's groups are there, which come with the first study that is asked for.
    """

    plugins: tuple[tuple[str, str], ...] = ()
    studies: bool = False


def composed(folder: Path, overrides: Sequence[str], *, root: type, stored: Stored = Stored()) -> DictConfig:
    """The configuration ``config`` of a folder with a command line's overrides.

    Args:
        root: the dataclass that the whole is typed with; its schemas stand in Hydra's ConfigStore.
        stored: what else these may choose from.

    Raises:
        ConfigError: every problem of the command line that can be seen together, one sentence each.
    """
    repository = _repository(folder, stored)
    given, problems = _parsed(overrides)
    problems += [problem for override in given for problem in _misspelt(override, repository, root)]
    _refuse(problems)
    choices = [override for override in given if _is_choice(override, repository)]
    config = copy.deepcopy(_of_files(folder, stored, tuple(_as_given(override) for override in choices)))
    for override in (override for override in given if not _is_choice(override, repository)):
        problems += _set(config, override)
    _refuse(problems)
    return config


def forget() -> None:
    """Read every file and schema anew, as a new process does."""
    _repository.cache_clear()
    _of_files.cache_clear()


@lru_cache(maxsize=2)
def _repository(folder: Path, stored: Stored) -> CachingConfigRepository:
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return CachingConfigRepository(loader.repository)  # type: ignore[attr-defined]


@lru_cache(maxsize=32)  # merging takes a third of a second, and most runs of one process differ in values only
def _of_files(folder: Path, stored: Stored, choices: tuple[str, ...]) -> DictConfig:
    """All files that a command line chooses, merged; the caller sets values in a copy."""
    repository = _repository(folder, stored)
    config = _merged(_files(_parsed(choices)[0], repository), repository)
    OmegaConf.set_struct(config, True)
    return config


def _is_choice(override: Override, repository: Any) -> bool:
    """Whether it chooses a file, as Hydra tells: a group's name, and no mapping."""
    return repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError("\n".join(problems))


def _parsed(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    """What was given, and what is no override at all."""
    parser, found, problems = OverridesParser.create(), [], []
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if override.is_sweep_override():
                problems.append(f"'{text}' names several values, and this command takes one.")
            else:
                found.append(override)
        except HydraException:
            problems.append(
                f"'{text}' cannot be read; an override is KEY=VALUE, e.g. curriculum=quickstart. Put what holds "
                "spaces, commas or brackets in quotes."
            )
    return found, problems


# ---------------------------------------------------------------------------- what can be said before files are merged


def _misspelt(override: Override, repository: Any, root: type) -> Iterator[str]:
    """A group, a choice or a key that the schemas know nothing of."""
    group, package = override.key_or_group, override.package
    if repository.group_exists(group):
        known = repository.get_group_options(group)
        value: Any = override.value()
        if value is None and not override.is_delete():
            yield f"{_as_given(override)}: {group} takes a name; leave it out for none.{_known('', known)}"
        for choice in (
            c for c in (value if isinstance(value, list) else [value]) if c is not None and str(c) not in known
        ):
            yield f"{_as_given(override)}: no {group} is called '{choice}'.{_known(str(choice), known)}"
        path = package or ""
    elif package is not None:
        groups = [name for name in _groups(repository) if name not in NO_CHOICE]
        yield f"{_as_given(override)}: there is no group '{group}'.{_known(group, groups)}"
        return
    else:
        path = group
    yield from _unknown_key(override, path.split(".") if path else [], root)


def _groups(repository: Any) -> list[str]:
    return list(repository.get_group_options("", ObjectType.GROUP))


def _unknown_key(override: Override, path: Sequence[str], root: type) -> Iterator[str]:
    """Follows typed fields; what is open (one of several kinds, a name) is looked at once it is composed."""
    kind: Any = root
    for place, key in enumerate(path):
        if _is_mapping(kind):
            kind = kind.__args__[1]
        elif is_dataclass(kind):
            known = [field.name for field in fields(kind)]
            if key not in known:
                if not place:  # at the top also what is short for every step
                    known += FOR_EVERY_STEP
                yield _no_such_key(override, path[:place], key, known, sought=_everywhere(root, key))
                return
            kind = _type_of(kind, key)


def _type_of(cls: Any, key: str) -> Any:
    return get_type_hints(cls)[key]


def _is_mapping(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is dict


def _everywhere(root: type, key: str) -> list[str]:
    """Paths of typed fields whose last word is nearly ``key``."""
    paths = list(_paths(root, ""))
    last = {path.rsplit(".", 1)[-1] for path in paths}
    close = difflib.get_close_matches(key, sorted(last), n=1, cutoff=0.75)
    return [path for path in paths if close and path.rsplit(".", 1)[-1] == close[0]]


def _paths(cls: Any, above: str) -> Iterator[str]:
    for field in fields(cls):
        path, kind = f"{above}{field.name}", _type_of(cls, field.name)
        yield path
        if _is_mapping(kind) and is_dataclass(kind.__args__[1]):
            yield from _paths(kind.__args__[1], f"{path}.NAME.")
        elif is_dataclass(kind):
            yield from _paths(kind, f"{path}.")


def _no_such_key(
    override: Override, above: Sequence[str], key: str, known: Sequence[str], *, sought: Sequence[str]
) -> str:
    below = f" below {'.'.join(above)}" if above else ""
    close = difflib.get_close_matches(key, known, n=1)
    if not close and sought:
        return f"{_as_given(override)}: there is no option '{key}'{below}. Did you mean {' or '.join(sought[:3])}?"
    return f"{_as_given(override)}: there is no option '{key}'{below}.{_known(key, known)}"


def _known(name: str, options: Sequence[str]) -> str:
    return f" Known: {', '.join(sorted(options)) or 'none'}.{suggestion(name, options)}"


def _as_given(override: Override) -> str:
    return override.input_line or override.key_or_group


# ------------------------------------------------------------------------------------------------- files, then values


def _files(given: Sequence[Override], repository: Any) -> Sequence[ResultDefault]:
    """The files that the run is made of; choices for places that it does not have are told together."""
    try:
        return _defaults(given, repository).defaults
    except HydraException as error:
        files = _defaults([override for override in given if not override.package], repository)
        places, problems = [str(place) for place in files.overrides.known_choices], []
        for override in (o for o in given if o.package and not o.is_add() and o.get_key_element() not in places):
            group = [place for place in places if place.startswith(f"{override.key_or_group}@")]
            problems.append(
                f"{_as_given(override)}: the run chooses nothing at '{override.get_key_element()}'."
                f"{_known(override.get_key_element(), group)}"
            )
        if not problems:
            raise ConfigError(_sentence(error)) from error
        raise ConfigError("\n".join(problems)) from error


def _defaults(given: Sequence[Override], repository: Any) -> DefaultsList:
    hydras = defaults_list._create_interpolation_map
    defaults_list._create_interpolation_map = _choices_for_interpolation(hydras)
    try:
        return defaults_list.create_defaults_list(
            repo=repository, config_name="config", overrides_list=list(given), prepend_hydra=False, skip_missing=False
        )
    finally:
        defaults_list._create_interpolation_map = hydras


def _choices_for_interpolation(hydras: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Hydra's own map, made only where an entry of a file reads it: for every file it takes a quarter of a plan."""

    def choices(overrides: Any, entries: list[Any], self_added: bool) -> DictConfig:
        if any("${" in str(getattr(entry, "value", None) or getattr(entry, "path", "")) for entry in entries):
            return hydras(overrides, entries, self_added)
        return OmegaConf.create()

    return choices


def _merged(files: Sequence[ResultDefault], repository: Any) -> DictConfig:
    config = OmegaConf.create()
    for file in files:
        content = repository.load_config(config_path=file.config_path).config
        if "defaults" in content:
            content = copy.deepcopy(content)  # the repository's stays whole for the next composition
            OmegaConf.set_readonly(content, False)
            content.pop("defaults")
        try:
            if file.package:
                OmegaConf.update(config, file.package, content, merge=True, force_add=True)
            else:
                config.merge_with(content)
        except OmegaConfBaseException as error:
            raise ConfigError(f"configs/{file.config_path}.yaml: {_sentence(error)}") from error
    return config


def _set(config: DictConfig, override: Override) -> Iterator[str]:
    """Sets one value; yields the sentence where that cannot be."""
    path = override.key_or_group.split(".")
    for place, key in enumerate(path):
        node = OmegaConf.select(config, ".".join(path[:place])) if place else config
        if not isinstance(node, DictConfig):
            break  # a list's place, or something new below an open mapping
        known = [str(name) for name in node]
        if key not in known and _is_closed(node):
            yield _no_such_key(override, path[:place], key, known, sought=[])
            return
    if not override.is_delete() and not isinstance(override.value(), dict | None) and _is_mapping_here(config, path):
        key = override.key_or_group
        yield f"{_as_given(override)}: {key} holds options by name; set one with {key}.NAME=…"
        return
    try:
        if override.is_delete():
            yield from _delete(config, override, path)
        else:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    except OmegaConfBaseException as error:
        yield f"{_as_given(override)}: {_sentence(error)}"


def _is_mapping_here(config: DictConfig, path: Sequence[str]) -> bool:
    return isinstance(OmegaConf.select(config, ".".join(path)), DictConfig)


def _is_closed(node: DictConfig) -> bool:
    """Typed options, or the run's steps: an entry of these comes from a file, not from a value."""
    element = node._metadata.element_type
    return is_dataclass(OmegaConf.get_type(node)) or is_dataclass(element)


def _delete(config: DictConfig, override: Override, path: Sequence[str]) -> Iterator[str]:
    parent = OmegaConf.select(config, ".".join(path[:-1])) if path[1:] else config
    if not isinstance(parent, DictConfig) or path[-1] not in parent:
        known = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
        yield _no_such_key(override, path[:-1], path[-1], known, sought=[])
        return
    if is_dataclass(OmegaConf.get_type(parent)):
        yield f"{_as_given(override)}: an option cannot be taken out; give it another value."
        return
    with open_dict(parent):
        del parent[path[-1]]


def _sentence(error: Exception) -> str:
    """The reason without what Hydra and OmegaConf say to programmers."""
    noise = ("object_type", "full_key", "reference_type", "To append", "Either remove", "Or add", "Available options")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(line for line in lines if not line.startswith(noise))[:600].rstrip(".") + "."
    wrong = re.fullmatch(r"Value (.+) of type '.+' (?:could not be converted to|is not a valid) (\w+)\.?", told)
    return f"{wrong[1]} is not {WORDS.get(wrong[2], wrong[2])}." if wrong else told
