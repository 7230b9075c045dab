"""What the operating system refuses ends as one sentence with exit code 2, in all three command lines."""

from __future__ import annotations

import errno
import os

import pytest

import common.files
from client.__main__ import main as client
from common.runtime.cli import AGAIN, os_sentence, run_command
from common.runtime.machine import check_device
from server.__main__ import main as server
from simulations.__main__ import main as simulations

COMMANDS = {
    "client": lambda: client(["init", "--yes", "--code", "CHUM", "--root", "."]),
    "server": lambda: server(["init", "federation", "--name", "localhost"]),
    "simulations": lambda: simulations(["run", "curriculum=smoke", "data=folder", "data.root=cohort"]),
}
FILES = {"client": "center.yaml", "server": "ca.key", "simulations": "CHUM.yaml"}


@pytest.fixture
def desk(tmp_path, monkeypatch, small_root):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cohort").symlink_to(small_root)


@pytest.mark.parametrize("package", COMMANDS)
@pytest.mark.parametrize(
    ("number", "beginning"),
    [
        (errno.ENOSPC, "The disk is full: '"),
        (errno.EDQUOT, "The disk is full: '"),
        (errno.EROFS, "'"),
        (errno.EACCES, "'"),
    ],
)
def test_a_disk_that_refuses_is_one_sentence(desk, monkeypatch, capsys, package, number, beginning):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(common.files.os, "fsync", refuse)
    assert COMMANDS[package]() == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "Error: " in line]
    kind, _, sentence = line.partition(": ")
    assert kind in ("OSError", "PermissionError") and sentence.startswith(beginning)
    assert FILES[package] in sentence and sentence.endswith(".")


def test_a_file_where_a_folder_is_needed(desk, capsys, tmp_path):
    (tmp_path / "taken").write_text("")
    assert simulations(["phantom", "--out", "taken/cohort", "--scale", "0.02"]) == 2
    assert "'taken' is in the way" in capsys.readouterr().err


def test_a_missing_file_says_what_paths_are_relative_to(desk, tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        (tmp_path / "nothing").read_text()
    assert os_sentence(raised.value).endswith(f"does not exist. Check the path; paths are relative to '{tmp_path}'.")


def test_a_full_disk_says_what_is_left(tmp_path):
    said = os_sentence(OSError(errno.ENOSPC, "full", str(tmp_path / "new" / "file")))
    assert "MB free in" in said and str(tmp_path) in said and said.endswith(AGAIN)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (MemoryError(), 2), (BrokenPipeError(), 0)])
def test_how_a_command_ends(error, code, monkeypatch, capsys):
    def command():
        raise error

    monkeypatch.setattr("sys.stdout", None)
    assert run_command(command) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_stays_a_traceback():
    def command():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(command)


def test_no_gpu_is_said_before_anything_starts(desk, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert simulations(["run", "curriculum=smoke", "runtime.device=cuda"]) == 2
    assert "no CUDA GPU is visible here; set runtime.device=cpu" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    check_device("cpu")


@pytest.mark.parametrize("text", ["", "seed: [", "a line\n", "seed: 1\n"])
def test_a_broken_configuration_of_a_run_is_named(desk, capsys, tmp_path, text):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text(text)
    assert server(["verify", "mine"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("LedgerError: mine/config.yaml ") and "restore it from a backup" in said
