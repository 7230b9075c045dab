"""Configs from YAML to dataclasses, and steps to JSON and back.

The server composes once; a step then crosses the network as JSON and is rebuilt here from closed sets of kinds, with
every key and type checked: it never names code.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import OmegaConfBaseException

from common import plugins
from common.config.adapter import PARTS, Adapter
from common.config.compose import composing
from common.config.compose.composing import Stored, composed
from common.config.compose.registry import complete, register
from common.config.compose.short import spelled_out
from common.config.federation import FEDERATIONS
from common.config.limits.untrusted import plain_json
from common.config.methods import METHODS
from common.config.methods.chosen import chosen
from common.config.methods.continual import RehearsalMethod
from common.config.options import CT_GRID
from common.config.privacy import PRIVACIES, NoPrivacy
from common.config.run import Data, Run
from common.config.step import Selection, Step
from common.config.task import TASKS
from common.config.training import Training
from common.config.view import View
from common.errors import ConfigError, UnknownName

REGION = "head_neck"  # HECKTOR's: steps on another one are not replaced by a cohort that stands in for it
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def compose_run(overrides: Sequence[str] = (), *, name: str | None = None) -> Run:
    """The run that ``configs/`` and the overrides describe, with the plugins that they name loaded first.

    Short forms are welcome: see `common.config.compose.short`.

    Raises:
        ConfigError: with Hydra's reason, or a plugin's.
    """
    paths = plugins.load(plugins_named(overrides), folder=Path.cwd())
    loaded = plugins.loaded_digests()
    run = copy.deepcopy(_composed(spelled_out(as_typed(overrides), lambda rest: _composed(rest, loaded)), loaded))
    run.plugins = [str(path) for path in paths]
    run.name = name or (run.curriculum if run.name == "run" else run.name)
    return run


PLUGINS = "plugins="


def plugins_named(overrides: Sequence[str]) -> list[str]:
    """The plugins that a command line names: ``plugins=[my_module,folder/other.py]``."""
    found = [override.lstrip("+") for override in overrides if override.lstrip("+").startswith(PLUGINS)]
    try:
        named = yaml.safe_load(found[-1].removeprefix(PLUGINS)) if found else []
    except yaml.YAMLError:
        named = None
    listed = [named] if isinstance(named, str) else named
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ConfigError(f"{found[-1]} is no list of plugins; write plugins=[my_module] or plugins=[folder/file.py].")
    return listed


TEXT = re.compile(r"\+{0,2}(?:(?:.*\.)?(?:name|centers|evaluate_at|code)|curriculum)")
PLAIN = re.compile(r"[\w.+:@-]+", re.ASCII)


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Overrides of names and of centers' codes with their values quoted, so that they stay what was typed.

    Hydra reads numbers before it looks at a field's type: ``name=1.10`` would be the run 1.1, and ``2026_11`` 202611.
    """
    return [_quoted(override) for override in overrides]


def _quoted(override: str) -> str:
    key, given, value = override.partition("=")
    if not given or TEXT.fullmatch(key) is None:
        return override
    listed = re.fullmatch(r"\[(.*)\]", value.strip())
    words = [word.strip() for word in (listed[1].split(",") if listed else [value])]
    if not all(PLAIN.fullmatch(word) for word in words):
        return override  # quoted already, nested, an interpolation, or empty
    quoted = [word if _is_a_word(word) else f"'{word}'" for word in words]
    return f"{key}=[{','.join(quoted)}]" if listed else f"{key}={quoted[0]}"


def forget() -> None:
    """Compose and parse anew, as a new process does: for tests that load a plugin twice."""
    for kept in (_composed, _parsed_step, _parsed_plain):
        kept.cache_clear()
    composing.forget()


def _is_a_word(text: str) -> bool:
    """Whether Hydra reads it as text anyway: a letter first, and none of its own words."""
    return text[0].isalpha() and text.lower() not in ("true", "false", "null", "nan", "inf", "infinity")


@lru_cache(maxsize=16)  # a study's run takes seconds to compose, and each arm of each cell asks for it
def _composed(overrides: tuple[str, ...], loaded: tuple[tuple[str, str], ...]) -> Run:
    studies = register(overrides)
    config = composed(CONFIGS, overrides, root=Run, stored=Stored(loaded, studies))
    try:
        run: Any = OmegaConf.to_object(config)
        complete(run)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, overrides)) from error
    if run.with_controls:
        run.steps |= run.controls
    for key, step in {**run.controls, **run.steps}.items():
        step.name = step.name or key
        step.privacy = None if isinstance(step.privacy, NoPrivacy) else step.privacy
        step.methods = [chosen(entry, presets=CONFIGS / "method") for entry in step.methods]
        _stand_in(step, run.data)
        if run.subgroups and not step.subgroups:
            step.subgroups, step.age_cuts = list(run.subgroups), list(run.age_cuts)
    return run


def run_to_yaml(run: Run) -> str:
    """The resolved run, as a person reads it."""
    dumper = get_omega_conf_dumper()  # what OmegaConf.to_yaml writes, without building nodes of everything first
    text: str = yaml.dump(asdict(run), default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=dumper)
    return text


LATER = (  # fields of a step that the first release did not have
    ("view", "intensities"), ("view", "score_on"), ("task", "within"), ("task", "tolerance_mm"), ("task", "outlined"),
    ("federation", "penalties"), ("", "budget"), ("", "subgroups"), ("", "age_cuts"), ("", "stands_on"),
    ("", "privacy"), ("selection", "keep"), ("view", "overlap"), ("view", "mirrors"), ("training", "views"),
    ("training", "foreground"), ("training", "optimizer"), ("training", "moments"),
    ("task", "loss"), ("task", "largest_component"), ("task", "smallest_ml"),
    ("", "compared_with"), ("federation", "secure_aggregation"), ("federation", "secure_bound"),
    ("privacy", "score_epsilon"), ("privacy", "score_answers"), ("privacy", "score_cohort"),
)  # fmt: skip
USUAL = {  # what says as little as an empty value
    ("view", "score_on"): CT_GRID, ("task", "tolerance_mm"): 3.0, ("", "age_cuts"): [65.0],
    ("view", "overlap"): 0.5, ("training", "foreground"): 0.5, ("task", "loss"): "dice_ce",
    ("training", "optimizer"): "adamw", ("federation", "secure_bound"): 1.0,
}  # fmt: skip


LATER_OF_METHODS = ("fraction",)
LATER_OF_PARTS = ("deep_supervision", "harmonize", "log_suv")  # options of parts that are off unless asked for


def step_to_json(step: Step) -> str:
    """A step as one canonical JSON string (ConfigRecord cannot nest).

    The string is part of an adapter's key: a field that came later stands in it only where it is set, so that what was
    learned before keeps its key.
    """
    plain = plain_of(step)
    for group, name in LATER:
        fields: Any = plain.get(group) if group else plain
        value = fields.get(name, True) if isinstance(fields, dict) else True
        if not value or value == USUAL.get((group, name)):
            del fields[name]
    for part in plain["adapter"]["parts"].values():
        for name in (name for name in LATER_OF_PARTS if not part.get(name, True)):
            del part[name]
    for method in plain["methods"]:
        for name in (name for name in LATER_OF_METHODS if not method.get(name, True)):
            del method[name]
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def step_from_json(text: str) -> Step:
    """The step that a message carries; refuses unknown kinds, keys and types."""
    return copy.deepcopy(_parsed_step(text))


@lru_cache(maxsize=64)  # checking every type takes tens of milliseconds, and each message of a round carries the step
def _parsed_step(text: str) -> Step:
    try:
        return _step(plain_json(text, "A step"))
    except (TypeError, ValueError, KeyError, AttributeError, OmegaConfBaseException) as error:
        raise ConfigError(f"A step could not be read from its message: {error}") from error


def from_json(cls: type, text: str) -> Any:
    """A plain (not polymorphic) dataclass from JSON, every key and type checked."""
    return copy.deepcopy(_parsed_plain(cls, text))


@lru_cache(maxsize=64)
def _parsed_plain(cls: type, text: str) -> Any:
    try:
        return plain(cls, plain_json(text, f"A {cls.__name__}"))
    except (TypeError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"A {cls.__name__} could not be read from its message: {error}") from error


def to_json(value: Any) -> str:
    """A plain dataclass as canonical JSON."""
    return json.dumps(plain_of(value), sort_keys=True, separators=(",", ":"))


def plain_of(value: Any) -> Any:
    """``dataclasses.asdict`` without copies of what cannot change: every message of a round asks for it."""
    if is_dataclass(value):
        return {name: plain_of(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: plain_of(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_of(inner) for inner in value]
    return value


def _step(data: dict[str, Any]) -> Step:
    rest = dict(data)
    polymorphic = {
        "task": _kind("task", TASKS, rest.pop("task")) if rest.get("task") else rest.pop("task", None),
        "federation": _kind("federation", FEDERATIONS, rest.pop("federation")),
        "methods": [_kind("method", METHODS, method) for method in rest.pop("methods")],
        "privacy": _kind("privacy", PRIVACIES, rest.pop("privacy"))
        if rest.get("privacy")
        else rest.pop("privacy", None),
        "adapter": Adapter({k: _kind("adapter part", PARTS, v) for k, v in rest.pop("adapter")["parts"].items()}),
        "view": plain(View, rest.pop("view")),
        "training": plain(Training, rest.pop("training")),
        "selection": plain(Selection, rest.pop("selection")),
    }
    step = plain(Step, rest)
    for name, value in polymorphic.items():
        setattr(step, name, value)
    return step


def _kind(what: str, registry: Mapping[str, type], data: dict[str, Any]) -> Any:
    kind = str(data.get("kind"))
    if kind not in registry:
        raise UnknownName(what, kind, registry)
    return plain(registry[kind], data)


def plain(cls: type, data: dict[str, Any]) -> Any:
    """A dataclass without polymorphic fields from plain values. Raises UnknownName for a key that it lacks."""
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise UnknownName(f"{cls.__name__} option", unknown[0], known)
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), data))


def _stand_in(step: Step, data: Data) -> None:
    """Another cohort's centers, region, structures and view in the place of HECKTOR's."""
    step.centers = [data.centers.get(code, code) for code in step.centers]
    step.evaluate_at = [data.centers.get(code, code) for code in step.evaluate_at]
    outlined = getattr(step.task, "outlined", None)
    if outlined:
        step.task.outlined = {data.centers.get(code, code): names for code, names in outlined.items()}
    for spec in (spec for spec in step.methods if isinstance(spec, RehearsalMethod)):
        spec.at = [data.centers.get(code, code) for code in spec.at]
    if step.region != REGION:
        return
    if data.view is not None:
        step.view = copy.deepcopy(data.view)
    if data.structures is not None and step.task is not None and step.task.kind in ("grounding", "segmentation"):
        step.task.structures = list(data.structures)
    step.region = data.region or step.region


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    given = " ".join(overrides) or "no overrides"
    reasons = [line.strip() for line in str(error).splitlines() if line.strip() and "object_type" not in line]
    return f"The configuration cannot be composed from {given}: {' '.join(reasons)[:600]}"
