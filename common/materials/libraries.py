"""Installed libraries that fedgraft needs, directly or through another, with their licences as they declare them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common.runtime.release import MANIFEST, ROOT

OSI = "License :: "
NOT_DECLARED = "not declared"
LONGEST = 80  # letters; some packages put the whole text of their licence where its name belongs


@dataclass(frozen=True)
class Library:
    """One installed distribution.

    Args:
        licence: an SPDX expression where the package has one (PEP 639), else its own words.
        is_expression: which of the two it is.
        needs: names of the installed libraries that it needs itself, sorted.
    """

    name: str
    version: str
    licence: str
    is_expression: bool
    needs: tuple[str, ...]

    @property
    def purl(self) -> str:
        """The package URL, by which scanners know it."""
        return f"pkg:pypi/{self.name}@{self.version}"


def direct_requirements(root: Path = ROOT) -> list[str]:
    """What pyproject.toml asks for, without its optional extras."""
    return list(tomllib.loads((root / MANIFEST).read_text())["project"]["dependencies"])


def libraries_of(requirements: Iterable[str]) -> list[Library]:
    """What these requirements need on this machine, as it is installed, by name; what is not installed is left out."""
    found: dict[str, Library] = {}
    waiting = [Requirement(one) for one in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if (name, frozenset(asked.extras)) in seen:
            continue
        seen.add((name, frozenset(asked.extras)))
        if (there := _installed(name)) is not None:
            needed = _needed(there, asked.extras)
            known = found.get(name)
            needs = {canonicalize_name(one.name) for one in needed} | set(known.needs if known else ())
            found[name] = _library(name, there, {one for one in needs if _installed(one) is not None})
            waiting += needed
    return [found[name] for name in sorted(found)]


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _needed(there: Distribution, extras: Iterable[str]) -> list[Requirement]:
    """What a distribution needs here, with some of its extras."""
    asked = [Requirement(one) for one in there.requires or []]
    wanted = ["", *extras]
    return [one for one in asked if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in wanted)]


def _library(name: str, there: Distribution, needs: Iterable[str]) -> Library:
    licence, is_expression = _licence(there)
    return Library(name, there.version, licence, is_expression, tuple(sorted(needs)))


def _licence(there: Distribution) -> tuple[str, bool]:
    said: Any = there.metadata  # an email.message.Message
    if expression := said.get("License-Expression"):
        return expression, True
    names = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or [] if line.startswith(OSI)]
    if names := [name for name in names if name != "OSI Approved"]:
        return ", ".join(sorted(names)), False
    words = (said.get("License") or "").strip().splitlines()
    return (words[0][:LONGEST] if words and words[0].strip() not in ("", "UNKNOWN") else NOT_DECLARED), False
