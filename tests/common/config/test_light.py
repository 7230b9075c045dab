"""Composing and planning need no torch: a typo is answered before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("flwr", "matplotlib", "monai", "pandas", "peft", "torch", "transformers")
COMPOSED = "from common.config.load import compose_run; compose_run(['curriculum=smoke'])"
PLANNED = "from server.__main__ import main; assert main(['plan', 'curriculum=smoke']) == 0"
MISTYPED = "from server.__main__ import main; assert main(['plan', 'curriculum=smok']) == 2"
RUN_MISTYPED = "from simulations.__main__ import main; assert main(['run', 'curriculum=smoke', 'seeed=2']) == 2"
STUDY = "from simulations.__main__ import main; assert main(['plan', 'study=hn4']) == 0"
STUDY_MISTYPED = "from simulations.__main__ import main; assert main(['run', 'study=hn4x']) == 2"
LISTED = "from simulations.__main__ import main; assert main(['options', 'faults']) == 0"


@pytest.mark.parametrize("what", [COMPOSED, PLANNED, MISTYPED, RUN_MISTYPED, STUDY, STUDY_MISTYPED, LISTED])
def test_composing_imports_nothing_heavy(what):
    script = f"{what}\nimport sys; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
