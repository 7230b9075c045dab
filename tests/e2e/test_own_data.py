"""One's own folder, federated with nothing but its path: nnU-Net's layout, images without a CT, and the same bits in
another layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from common.store.ledger import Ledger
from simulations.simulate import simulate
from tests.helpers.layouts import in_brats, in_declared, in_hecktor, in_nnunet
from tests.helpers.small import forget

SMALL = (
    "backbone=tiny", "steps.own.rounds=1", "steps.own.view.window=[16,16,16]", "runtime.workers=1",
    "steps.own.training.epochs=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def hecktor(tmp_path_factory) -> Path:
    return in_hecktor(tmp_path_factory.mktemp("own") / "hecktor")


def run_on(root: Path, folder: Path, *more: str):
    forget()
    place = simulate(["curriculum=own", f"data.root={root}", *SMALL, *more], folder=folder)
    [finished] = Ledger(place.ledger).events("step_finished")
    return finished["key"], json.loads(place.results.read_text())


@pytest.mark.e2e
def test_a_declared_layout_trains_the_adapter_of_hecktors(hecktor, tmp_path):
    declared = in_declared(hecktor, tmp_path / "declared")
    for table in hecktor.glob("*.csv"):  # patients are split by outcome too
        shutil.copyfile(table, declared / table.name)
    assert run_on(declared, tmp_path / "a")[0] == run_on(hecktor, tmp_path / "b")[0]


@pytest.mark.e2e
def test_an_nnunet_folder_is_scored_at_its_centers_by_its_structures(hecktor, tmp_path):
    _, results = run_on(in_nnunet(hecktor, tmp_path / "nnunet"), tmp_path / "run")
    scores = [row for row in results["scores"] if row["step"] == "own"]
    assert {row["center"] for row in scores} >= {"CHUM", "MDA", "HMR"}
    assert {"dsc_agg_GTVp", "dsc_agg_GTVn"} <= {row["metric"] for row in scores}


@pytest.mark.e2e
def test_images_without_a_ct_train(hecktor, tmp_path):
    root = in_brats(hecktor, tmp_path / "brats")
    _, results = run_on(root, tmp_path / "run", "steps.own.task.structures=[whole_tumor,edema]")
    assert {row["center"] for row in results["scores"]} >= {"C1", "C2", "C3"}
