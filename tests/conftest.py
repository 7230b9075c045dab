"""Shared by all tests: offline switches before anything heavy is imported, and the shared folder if it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.offline import go_offline

go_offline()

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """``../shared`` with golden values and real data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: golden values and real data are not part of the repository")
    return SHARED
