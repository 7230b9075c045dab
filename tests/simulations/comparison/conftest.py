"""A comparison's first cell, its federated arm trained."""

from __future__ import annotations

import shutil

import pytest

from simulations.comparison import arms
from simulations.comparison.comparing import Cell, Comparing
from simulations.comparison.names import FEDERATED
from tests.helpers.small import federate


@pytest.fixture
def federated_cell(small_centers, tmp_path, monkeypatch):
    """Of a run: the comparison and its cell, in which arms can be recorded."""

    def made(run):
        comparing = Comparing(run, tmp_path / "compare", ())
        cell = Cell(run.data.split.fold, run.seed)
        folder = comparing.arm_folder(FEDERATED, cell)
        federate(run, folder.path, small_centers)
        folder.centers.mkdir(exist_ok=True)
        for code in next(iter(run.steps.values())).centers:
            shutil.copy(small_centers[code], folder.centers)
        monkeypatch.setattr(arms, "compose_run", lambda overrides: run)
        return comparing, cell

    return made
