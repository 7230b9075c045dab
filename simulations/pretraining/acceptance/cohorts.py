"""The cohorts of an acceptance: real cases and fresh phantoms, each parted by a hash of the patients' IDs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.data.case import Case
from client.data.dataset import CaseSet, usable
from client.data.images.cache import VolumeCache
from client.data.layouts import find_cases
from common.config.adapter import VoxelLinearPart
from common.config.load import compose_run
from common.config.step import Step
from common.config.view import View
from common.errors import DataError
from simulations.comparison.recorded.exact_voxels_arm import exact_voxels_step
from simulations.phantom.cohort import make_cohort

CUBE = View(spacing_mm=[3.0] * 3, size=[48] * 3, window=[48] * 3)  # the phantom's 144 mm at the CT's finer spacing
CHOOSE = 3  # each third case that is not set aside chooses the ridge


@dataclass(frozen=True)
class Parted:
    """A cohort's prepared cases.

    Args:
        step: their view and structures, under an exact head.
        fitted: not set aside.
        trained, choosing: the fitted ones in two, for the choice of the ridge alone.
        aside: opened once every setting is fixed.
    """

    name: str
    step: Step
    fitted: CaseSet
    trained: CaseSet
    choosing: CaseSet
    aside: CaseSet


def real(root: Path, cache: Path) -> Parted:
    """Half of the sts7 cases aside, on the grid of ``curriculum=sts7_exact``."""
    run = compose_run(["curriculum=sts7_exact", f"data.root={root}"])
    cases = find_cases(root, mapping=run.data.mapping, layout=run.data.layout)
    return parted("sts7", run.steps["tumour_exact"], cases, cache)


def phantom(seed: int, *, scale: float, folder: Path, cache: Path) -> Parted:
    """Half of a fresh phantom's patients aside; the cohort is drawn where it is not there yet."""
    root = folder / f"phantom-{seed}"
    make_cohort(root, scale=scale, seed=seed, chest=1)
    step = compose_run(["curriculum=quickstart"]).steps["tumour_ctpet"]
    exact = exact_voxels_step(replace(step, view=CUBE, starts_from=None), VoxelLinearPart())
    return parted(f"phantom {seed}", exact, find_cases(root / "hecktor"), cache)


def parted(name: str, step: Step, cases: Sequence[Case], cache: Path) -> Parted:
    """The usable cases in the order of a hash of their IDs: the first half aside, of the rest each third chooses.

    Raises:
        DataError: there are fewer than six.
    """
    found = sorted((case for case in cases if usable(case, step)), key=lambda case: _hash(case.patient))
    if len(found) < 2 * CHOOSE:
        raise DataError(f"{name} has {len(found)} usable cases; an acceptance needs {2 * CHOOSE} or more.")
    aside, fitted = found[: len(found) // 2], found[len(found) // 2 :]
    choosing = fitted[::CHOOSE]
    trained = [case for case in fitted if case not in choosing]
    sets = [CaseSet(part, step, cache=VolumeCache(cache)) for part in (fitted, trained, choosing, aside)]
    return Parted(name, step, *sets)


def _hash(patient: str) -> str:
    return hashlib.sha256(f"fedgraft acceptance {patient}".encode()).hexdigest()
