"""README and docs: every link leads somewhere, every command runs or, where its page says why not, composes.

A block of commands under a line in italics that begins with *Takes* or *Needs* is not run here; all others are, page by
page, in order, in one temporary folder of the page: one page at a shell, the others by calling the command.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest

from common.config.load import compose_run
from common.config.rules import broken_rules
from common.errors import FedgraftError
from simulations.reference.commands import parsers
from simulations.sweep import points_of, varied
from tests.helpers.pages import PAGES, ROOT, anchors, blocks, commands, inline_commands, links, name_of
from tests.helpers.small import forget

SECONDS = 600  # a minute or two on a free machine; CI may be busy
AT_A_SHELL = {"docs/researcher/quickstart.md"}
OTHERS = {"tensorboard", "docker", "kubectl", "sbatch", ".venv/bin/pip"}
RUN_BY_A_TEST = [
    page for page in PAGES if any(block.runs or (commands(block) and not block.mark) for block in blocks(page))
]


def test_the_readme_is_a_page_long():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(goal), f"{name_of(page)} links to {target}: no such heading"


def test_every_command_parses():
    assert {command: problem for command, words in _printed().items() if (problem := _misspelled(words))} == {}


@pytest.mark.slow
def test_every_run_composes_and_breaks_no_rule():
    runs = {tuple(overrides) for words in _printed().values() if (overrides := _overrides(words))}
    assert {run: problem for run in sorted(runs) if (problem := _unsound(run))} == {}


def test_a_page_that_runs_make_says_what_it_takes():
    unmarked = [name_of(page) for page in PAGES for block in blocks(page) if not block.mark
                for words in commands(block) if words[0] == "make"]  # fmt: skip
    assert unmarked == []


def test_the_walks_name_files_and_functions_that_exist():
    for line in (ROOT / "docs/developer/house.md").read_text().splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:-1]]
        if len(cells) != 3 or not cells[1]:
            continue
        paths = _paths(cells[1])
        text = "".join(f.read_text() for path in paths for f in ([path] if path.is_file() else path.rglob("*.py")))
        for name in re.findall(r"\w+", " ".join(cells[2]).partition("(")[0]):
            assert re.search(rf"\b{name}\b", text), f"house.md: {name} is not in {cells[1]}"


def test_every_row_of_where_libraries_disagree_is_a_test():
    """A name may be cut with an ellipsis; one without a file is of the file before it in the cell."""
    modules: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):  # two folders may have a module of one name
        modules[path.name] = modules.get(path.name, "") + path.read_text()
    rows = (ROOT / "docs/concepts/where-libraries-disagree.md").read_text().splitlines()
    cells = [line.rstrip(" |").rpartition(" | ")[2] for line in rows if line.startswith("| ")][1:]
    for cell in cells:
        file, named = "", re.findall(r"`([^`]+)`", cell)
        assert named, f"a row names no test: {cell}"
        for name in named:
            file = name.partition("::")[0] if ".py" in name else file
            test = re.escape(name.rpartition("::")[2].removesuffix("…")) + ("" if name.endswith("…") else r"\(")
            wanted = "" if name.endswith(".py") else rf"^def {test}"
            assert file in modules and re.search(wanted, modules[file], re.MULTILINE), f"no test {file} {name}"


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """What earlier pages' commands left behind: cohorts by their folder's name, runs by their command."""
    return {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUN_BY_A_TEST, ids=name_of)
def test_what_a_page_prints_runs(page, tmp_path, made, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forget()
    run, names = (_typed if name_of(page) in AT_A_SHELL else _called), {"__name__": "__main__"}
    for block in blocks(page):
        if block.runs:
            exec("\n".join(block.lines), names)
        elif not block.mark:
            for words in commands(block):
                with _what_is_there(words, made):
                    run(words)


@contextmanager
def _what_is_there(words: list[str], made: dict[str, Path]) -> Iterator[None]:
    """A command's cohort, and the run that the same command ended with on an earlier page, are moved here.

    The command then finds them as they are found by whoever types it again, and trains nothing twice.
    """
    if words[2:4] != ["simulations", "run"]:
        yield
        return
    name = next((word.partition("=")[2] for word in words if word.startswith("name=")), "smoke")
    places = {"data": Path("data"), " ".join(words): Path("runs", name)}
    for key, place in places.items():
        if key in made and not place.exists():
            place.parent.mkdir(exist_ok=True)
            made[key].rename(place)
    yield
    made |= {key: place.absolute() for key, place in places.items() if place.exists()}


def _called(words: list[str]) -> None:
    """The command's function, with its words."""
    assert words[:2] == ["python", "-m"], words
    with warnings.catch_warnings(), patch.dict(os.environ):
        warnings.simplefilter("default")  # as in a process of its own
        ended = import_module(f"{words[2]}.__main__").main(words[3:])
    assert ended == 0, " ".join(words)


def _typed(words: list[str]) -> None:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words[1:]], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def _printed() -> dict[str, list[str]]:
    """Every command with the page that prints it."""
    found = [(page, words) for page in PAGES for block in blocks(page) for words in commands(block)]
    found += [(page, words) for page in PAGES if page.name != "LOG.md" for words in inline_commands(page)]
    return {f"{name_of(page)}: {' '.join(words)}": words for page, words in found}


@cache
def _parsers() -> dict[tuple[str, str], argparse.ArgumentParser]:
    return {(package, name): parser for package, name, _, parser in parsers()}


def _misspelled(words: list[str]) -> str:
    """Why a printed command cannot be typed; empty where it can."""
    if words[0] == "make":
        return "" if set(words[1:]) <= _targets() else "no such target"
    if words[0] != "python" or words[2] in ("pip", "venv"):
        return "" if words[0] in OTHERS | {"python"} else "an unknown program"
    if (words[2], words[3]) not in _parsers():
        return "no such command"
    try:
        _parsers()[words[2], words[3]].parse_args(words[4:])
    except SystemExit:
        return "its arguments do not parse" if words[4:] else ""  # a command that the text only names
    return ""


def _overrides(words: list[str]) -> list[str]:
    """What a command sets of a run; nothing where it starts none, or one with a file of its page (test_own_things)."""
    if any(word.startswith("plugins=") for word in words):
        return []
    if words[:2] != ["python", "-m"] or words[3:4] not in (["run"], ["compare"], ["flower"], ["plan"]):
        return []
    return [word for word in words[4:] if "=" in word]


def _unsound(overrides: tuple[str, ...]) -> str:
    try:
        lines = [p.overrides for p in points_of(overrides, name="printed")] if varied(overrides) else [list(overrides)]
        return "; ".join(problem for line in lines for problem in broken_rules(compose_run(line), may_be_open=True))
    except FedgraftError as error:
        return str(error)


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def _paths(names: list[str]) -> list[Path]:
    """Files of a station; a bare name lies beside the one before it."""
    found: list[Path] = []
    for name in names:
        path = ROOT / name if "/" in name else found[-1].parent / name
        assert path.exists(), f"house.md names {name}"
        found.append(path)
    return found
