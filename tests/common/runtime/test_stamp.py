"""A stamp changes with any file that it covers, and with nothing else."""

import os

import pytest

from common.runtime.stamp import stamp


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "one.py").write_text("1")
    (tmp_path / "a" / "deep" / "two.py").write_text("2")
    (tmp_path / "a" / "note.txt").write_text("3")
    return tmp_path / "a"


def put(path, text, *, keeping_time=False):
    before = path.stat()
    path.write_text(text)
    if keeping_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "longer": lambda folder: put(folder / "one.py", "11"),
    "as long, and its time set back": lambda folder: put(folder / "one.py", "9", keeping_time=True),
    "new": lambda folder: (folder / "deep" / "three.py").write_text("3"),
    "gone": lambda folder: (folder / "deep" / "two.py").unlink(),
    "another name": lambda folder: (folder / "one.py").rename(folder / "eins.py"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_any_change_of_a_file_is_another_stamp(folder, kind):
    before = stamp([folder], suffixes=(".py",))
    assert before is not None and before == stamp([folder], suffixes=(".py",))
    CHANGES[kind](folder)
    assert stamp([folder], suffixes=(".py",)) != before


def test_what_is_not_covered_changes_nothing(folder):
    before = stamp([folder], suffixes=(".py",), without=[folder / "deep"])
    (folder / "note.txt").write_text("another")
    (folder / "deep" / "two.py").write_text("another")
    (folder / "__pycache__").mkdir()
    assert stamp([folder], suffixes=(".py",), without=[folder / "deep"]) == before


def test_what_is_absent_is_seen_when_it_comes(folder):
    before = stamp([folder / "later"])
    (folder / "later").write_text("here")
    assert before is not None and stamp([folder / "later"]) != before


def test_a_link_back_is_not_walked_for_ever_and_too_many_files_have_no_stamp(folder):
    (folder / "deep" / "back").symlink_to(folder)
    assert stamp([folder]) is not None
    assert stamp([folder], most=3) is not None and stamp([folder], most=2) is None
