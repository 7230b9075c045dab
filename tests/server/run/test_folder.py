"""One server at a time works in a run folder; the lock goes with its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import FedgraftError, RoundFailed
from server.run.folder import RunFolder, alone_in, existing

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from pathlib import Path
from server.run.folder import RunFolder, alone_in
with alone_in(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_while_it_is_held_and_let_in_when_that_one_is_killed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RoundFailed, match="Another process is at work"), alone_in(folder, patience_s=0.3):
            pass
        holder.kill()
        with alone_in(folder, patience_s=5.0):
            pass


def test_what_is_no_run_folder_is_said_to_be_none(tmp_path):
    with pytest.raises(FedgraftError, match="no ledger"):
        existing(tmp_path)


def test_what_a_run_is_compared_with_is_found_under_its_earlier_name_too(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.comparison.name == "comparison.json"
    (tmp_path / "beside.json").write_text("{}")
    assert folder.comparison == tmp_path / "beside.json"
