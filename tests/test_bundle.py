"""The Flower App Bundle: the same bytes each time, and exactly the code that a hospital reviews."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [*(("server", "*.py"), ("client", "*.py"), ("common", "*.py"), ("configs", "*.yaml"))]
MANIFEST = {"pyproject.toml", ".info/CONTENT"}

pytestmark = pytest.mark.slow  # Flower walks the whole checkout, .venv included


def build(folder: Path) -> Path:
    folder.mkdir()
    command = [str(Path(sys.executable).with_name("flwr")), "build", "--app", str(ROOT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [bundle] = folder.glob("*.fab")
    return bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    place = tmp_path_factory.mktemp("bundles")
    return build(place / "first"), build(place / "second")


def test_two_builds_are_the_same_bytes_under_the_same_name(bundles):
    first, second = bundles
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_it_holds_the_three_packages_and_their_configs_and_nothing_else(bundles):
    with zipfile.ZipFile(bundles[0]) as bundle:
        held = set(bundle.namelist())
    files = (path.relative_to(ROOT).as_posix() for top, name in SHIPPED for path in (ROOT / top).rglob(name))
    wanted = {name for name in files if not name.startswith("configs/study/")}
    assert wanted > {"server/app.py", "client/app.py", "common/protocol/wire.py", "configs/config.yaml"}
    assert held == wanted | MANIFEST


def test_its_code_is_this_checkouts_code(bundles):
    with zipfile.ZipFile(bundles[0]) as bundle:
        changed = [
            name
            for name in bundle.namelist()
            if name not in MANIFEST and bundle.read(name) != (ROOT / name).read_bytes()
        ]
    assert changed == []
