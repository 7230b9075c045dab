"""Shared by all tests: offline switches before anything heavy is imported, and the shared folder if it is there."""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from common.runtime.offline import go_offline

go_offline()
gc.disable()  # until everything is imported and collected: the collector would look through it again and again


def pytest_collection_finish() -> None:
    """What is there by now stays for the session: the collector need not look at it, and rarely at the rest."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only slow tests are asked for, a file that marks none is not even imported."""
    if collection_path.suffix == ".py" and config.option.markexpr == "slow or e2e":
        return True if re.search(r"\bmark\.(slow|e2e)\b", collection_path.read_text()) is None else None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that may take longest begin first, so that none is left to one worker at the end; else as collected."""
    longest: dict[Path, float] = {}
    for item in items:
        allowed = [float(mark.args[0]) for mark in item.iter_markers("timeout")]
        longest[item.path] = max([longest.get(item.path, 0.0), *allowed])
    items.sort(key=lambda item: -longest[item.path])


# two busy cores are no finding
settings.register_profile("fedgraft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedgraft")

# What a killed process wrote, the kernel still holds: only a power cut could tell, and no test makes one. A small
# federation waits for the disk a quarter of its time. Tests of a disk that refuses put their own in its place.
os.fsync = lambda handle: None

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """``../shared`` with golden values and real data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: golden values and real data are not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of four centers in the 2022 layout; read only, tests that change files make their own."""
    from tests.helpers.small import SIZES, write_cohort

    return write_cohort(tmp_path_factory.mktemp("cohort"), SIZES)


@pytest.fixture(scope="session")
def small_centers(small_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four centers' files."""
    from tests.helpers.small import SIZES, write_centers

    return write_centers(tmp_path_factory.mktemp("centers"), small_root, SIZES)


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins that the test loads are forgotten after it."""
    from common import plugins

    monkeypatch.setattr(plugins, "ADDED", {})
    monkeypatch.setattr(plugins, "LOADED", {})
    monkeypatch.setenv(plugins.INHERITED, "")
