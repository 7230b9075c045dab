"""The README names only commands that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("package", ["server", "simulations"])
def test_every_command_in_the_readme_exists(package, capsys):
    from importlib import import_module

    main = import_module(f"{package}.__main__").main
    with pytest.raises(SystemExit):
        main(["--help"])
    known = capsys.readouterr().out
    for command in set(re.findall(rf"python -m {package} ([a-z]+)", README)):
        assert command in known, f"README: python -m {package} {command}"


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
