"""A federation small enough for a test: patients of 16 voxels a side, the tiny backbone, one process.

Plain functions; `tests/conftest.py` makes the session's cohort from them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import torch
from flwr.app import Message
from omegaconf import OmegaConf
from yaml import YAMLError

from client.center import resident
from client.center.center import Center
from client.center.config import CenterConfig
from client.policy import Policy
from common.config.load import compose_run
from common.config.run import Run
from common.config.step import Selection
from common.config.view import View
from server.centers.federation import Federation
from server.coordinator import Coordinator
from server.curriculum import run_curriculum
from server.run.folder import RunFolder
from server.run.narration import Narrator
from simulations.virtual.local_grid import LocalGrid

SIZES = {"CHUM": 6, "CHUP": 5, "MDA": 7, "HMR": 4}
SIDE, SPACING = 16, 6.0
CLINICAL = (
    "PatientID,Task 1,Task 2,CenterID,Gender,Age,Weight,Tobacco,Alcohol,Performance status,"
    '"HPV status (0=-, 1=+)",Surgery,Chemotherapy'
)


def save(path: Path, data: np.ndarray, *, shift_mm: float = 0.0) -> Path:
    """A NIfTI file of 6 mm voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = shift_mm
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def write_cohort(root: Path, sizes: Mapping[str, int], *, seed: int = 0) -> Path:
    """Images, labels and tables in the 2022 layout; a bright primary and, in two of three cases, a node."""
    clinical, endpoint = [CLINICAL], ["PatientID,Relapse,RFS"]
    for center, count in sorted(sizes.items()):
        for number in range(1, count + 1):
            patient = f"{center}-{number:03d}"
            rng = np.random.default_rng([seed, number, sum(center.encode())])
            _write_patient(root, patient, rng, with_node=number % 3 > 0)
            clinical.append(f"{patient},1,1,1,{'MF'[number % 2]},{50 + 3 * number},80,,0,1.0,{number % 2},,1")
            endpoint.append(f"{patient},{number % 2},{int(rng.integers(100, 1500))}")
    (root / "hecktor2022_clinical_info_training.csv").write_text("\n".join(clinical) + "\n")
    (root / "hecktor2022_endpoint_training.csv").write_text("\n".join(endpoint) + "\n")
    return root


def _write_patient(root: Path, patient: str, rng: np.random.Generator, *, with_node: bool) -> None:
    shape = (SIDE, SIDE, SIDE)
    mask = np.zeros(shape, np.uint8)
    x, y, z = rng.integers(4, 9, 3)
    mask[x : x + 4, y : y + 4, z : z + 4] = 1
    if with_node:
        mask[12:15, 2:4, 2:5] = 2
    ct = rng.normal(0, 60, shape) + 200.0 * (mask > 0)
    pet = rng.random(shape) + 5.0 * (mask > 0)
    save(root / "imagesTr" / f"{patient}__CT.nii.gz", ct.astype(np.int16))
    save(root / "imagesTr" / f"{patient}__PT.nii.gz", pet.astype(np.float32))
    save(root / "labelsTr" / f"{patient}.nii.gz", mask)


VIEW = View(spacing_mm=[SPACING] * 3, size=[SIDE] * 3, window=[SIDE] * 3, crop="center")


def small_run(
    *overrides: str, centers: list[str] | None = None, rounds: int = 2, steps: list[str] | None = None
) -> Run:
    """The quickstart's head-and-neck steps on the tiny backbone; ``centers`` train and are evaluated at every step.

    ``tumour_ct`` trains without augmentation, so that its frozen features are kept; the others with it.
    """
    run = copy.deepcopy(_composed(overrides))
    run.data.split.folds, run.data.split.validation = 3, 0.34
    run.steps |= run.controls
    run.steps = {name: run.steps[name] for name in steps or ["tumour_ct", "tumour_ctpet"]}
    for step in run.steps.values():
        step.rounds, step.view, step.selection = rounds, View(**asdict(VIEW)), Selection()
        step.training.batch, step.training.epochs, step.training.augment = 2, 1, step.name != "tumour_ct"
        if centers is not None:
            step.centers, step.evaluate_at = list(centers), list(centers)
    return run


@lru_cache(maxsize=16)
def _composed(overrides: tuple[str, ...]) -> Run:
    return compose_run(["curriculum=quickstart", "backbone=tiny", "name=small", *overrides])


OPEN: dict[str, Any] = {"minimum_cases": 1, "minimum_cell": 1, "minimum_batch": 1, "reach": None}
OPEN |= {"federations": ["all"], "parts": ["all"], "test_folds": "all"}


def write_centers(folder: Path, root: Path, codes, **policy) -> dict[str, Path]:
    """A ``center.yaml`` for each code, with a cache beside it."""
    files = {}
    folder.mkdir(parents=True, exist_ok=True)
    for code in codes:
        floor = Policy(**{**OPEN, **policy})
        config = CenterConfig(code, str(root), cache=str(folder / ".cache"), vault=str(folder / ".vault"), policy=floor)
        files[code] = folder / f"{code}.yaml"
        files[code].write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
    return files


def forget() -> None:
    """Empty what this process keeps of cases: as in a new process."""
    resident.CASE_SETS.clear()
    resident.cases_at.cache_clear()


LAST: dict[str, object] = {}  # the centers' files and folders as they were when cases were last looked for


def as_in_a_new_process(files: Mapping[str, Path]) -> None:
    """Prepared cases are forgotten, and found ones too, unless every file and folder is as it was."""
    resident.CASE_SETS.clear()
    texts = {str(path): path.read_text() for path in files.values() if path.is_file()}
    places = {place for text in texts.values() for place in _places(text)}
    now = texts | {place: _as_it_is(Path(place)) for place in places}
    if any(LAST.get(name) != stamp for name, stamp in now.items()):
        resident.cases_at.cache_clear()
        LAST.clear()
    LAST.update(now)


@lru_cache(maxsize=64)
def _places(text: str) -> list[str]:
    """What a center's file says is read when cases are looked for."""
    try:
        config = OmegaConf.create(text)
    except YAMLError:  # a test's damaged file: nothing is read by it
        return []
    return [str(config.get(name)) for name in ("root", "mapping", "layout") if config.get(name)]


def _as_it_is(place: Path) -> list[tuple[str, int, int]]:
    """Path, size and time of the last change of everything at a place."""
    found = [place, *place.rglob("*")] if place.exists() else []
    return sorted((str(path), stat.st_size, stat.st_mtime_ns) for path in found for stat in [path.lstat()])


def coordinator(run: Run, folder: Path, grid: LocalGrid, *, patience_s: float = 0.0) -> Coordinator:
    """A coordinator that says nothing."""
    return Coordinator(
        Federation(grid, patience_s=patience_s), run, RunFolder(folder), Narrator(None, say=lambda line: None)
    )


def federate(run: Run, folder: Path, files: Mapping[str, Path], *, workers: int = 0, grid=LocalGrid) -> Coordinator:
    """Run or resume a curriculum in ``folder``."""
    as_in_a_new_process(files)
    at_work = grid(files, workers=workers)
    try:
        leader = coordinator(run, folder, at_work)
        run_curriculum(leader)
    finally:
        at_work.close()
        torch.use_deterministic_algorithms(False)
    return leader


def adapters(leader: Coordinator) -> dict[str, str]:
    """Step -> key of its adapter: equal keys mean equal bits."""
    return {event["step"]: event["key"] for event in leader.ledger.events("step_finished")}


def open_all(files: Mapping[str, Path]) -> list[Center]:
    return [Center.open(files[code]) for code in sorted(files)]


Tamper = Callable[[Message, Message], Message | None]


class TamperingGrid(LocalGrid):
    """A LocalGrid that remembers every reply and may change it, or lose it, on its way."""

    tamper: Tamper = staticmethod(lambda sent, reply: reply)
    seen: ClassVar[list[tuple[Message, Message]]] = []

    def _work(self, messages, *, timeout):
        answered = super()._work(messages, timeout=timeout)
        type(self).seen.extend(answered)
        changed = [(sent, type(self).tamper(sent, reply)) for sent, reply in answered]
        return [(sent, reply) for sent, reply in changed if reply is not None]


def tampering(tamper: Tamper | None = None) -> type[TamperingGrid]:
    """A grid class of its own, with its own memory."""
    return type("Tampering", (TamperingGrid,), {"tamper": staticmethod(tamper or (lambda s, r: r)), "seen": []})


def asked(sent: Message) -> tuple[str, int]:
    """('train', round) of a message."""
    return sent.metadata.message_type, int(sent.content.config_records["config"]["round"])


def code_of(reply: Message) -> str:
    """The center that answered."""
    return str(reply.content.config_records["status"]["center"])


def children_of(parent: int) -> list[int]:
    """Process ids of a process's children (Linux)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


def all_below(pid: int) -> list[int]:
    """Process ids of everything that a process started, and that these started (Linux)."""
    return [found for child in children_of(pid) for found in (child, *all_below(child))]


def gone(pids: list[int], *, within_s: float = 20.0) -> bool:
    """Whether processes end (or are zombies) within some seconds."""
    deadline = time.monotonic() + within_s
    while any(_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
