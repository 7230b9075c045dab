"""The file that speaks to Hydra: defaults lists, then the command line's values, with every misspelling told at once.

Hydra resolves which files a run is made of. They are merged here, each into its own place (Hydra merges each into the
whole, which takes five times as long), and the values of the command line are set one by one: a key that no option has
is refused with the nearest one, with a leading ``+`` too, so that a typo never passes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra import initialize_config_dir
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import DefaultsList, ResultDefault, create_defaults_list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from common.errors import ConfigError, suggestion

WORDS = {"Boolean": "true or false", "Float": "a number", "Integer": "a whole number", "String": "a word"}
NO_CHOICE = ("deploy", "hydra", "mapping", "method", "schema")  # folders that a run chooses nothing from


def composed(folder: Path, overrides: Sequence[str], *, root: type) -> DictConfig:
    """The configuration ``config`` of a folder with a command line's overrides.

    Args:
        root: the dataclass that the whole is typed with; its schemas stand in Hydra's ConfigStore.

    Raises:
        ConfigError: every problem of the command line that can be seen together, one sentence each.
    """
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        repository = CachingConfigRepository(loader.repository)  # type: ignore[attr-defined]
    given, problems = _parsed(overrides)
    problems += [problem for override in given for problem in _misspelt(override, repository, root)]
    _refuse(problems)
    files = _files(given, repository, problems)
    _refuse(problems)
    config = _merged(files.defaults, repository)
    OmegaConf.set_struct(config, True)
    for override in files.config_overrides:
        problems += _set(config, override)
    _refuse(problems)
    return config


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


def _files(given: Sequence[Override], repository: Any, problems: list[str]) -> DefaultsList:
    """The files that the run is made of; choices for places that it does not have are told together."""
    try:
        return _defaults(given, repository)
    except HydraException as error:
        files = _defaults(
            [o for o in given if not repository.group_exists(o.key_or_group) or not o.package], repository
        )
        places = [str(place) for place in files.overrides.known_choices]
        for override in (o for o in given if o.package and not o.is_add() and o.get_key_element() not in places):
            group = [place for place in places if place.startswith(f"{override.key_or_group}@")]
            problems.append(
                f"{_as_given(override)}: the run chooses nothing at '{override.get_key_element()}'."
                f"{_known(override.get_key_element(), group)}"
            )
        if not problems:
            raise ConfigError(_sentence(error)) from error
        return files


def _defaults(given: Sequence[Override], repository: Any) -> DefaultsList:
    return create_defaults_list(
        repo=repository, config_name="config", overrides_list=list(given), prepend_hydra=False, skip_missing=False
    )


def _merged(files: Sequence[ResultDefault], repository: Any) -> DictConfig:
    config = OmegaConf.create()
    for file in files:
        content = repository.load_config(config_path=file.config_path).config
        if "defaults" in content:
            OmegaConf.set_readonly(content, False)  # this composition's own, read anew for the next one
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
    try:
        if override.is_delete():
            yield from _delete(config, override, path)
        else:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    except OmegaConfBaseException as error:
        yield f"{_as_given(override)}: {_sentence(error)}"


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
