"""Tiny patients on disk: `disk` writes single files on any grid, `cohort` a 2022 folder with tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write a NIfTI file; 3 mm isotropic where no affine is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine), path)
    return path


def ct(shape: tuple[int, int, int] = (12, 10, 9), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def pet(shape: tuple[int, int, int] = (12, 10, 9), seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def label(shape: tuple[int, int, int] = (12, 10, 9)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[3:6, 3:6, 3:6] = 1
    mask[8:10, 2:4, 2:4] = 2
    return mask


CLINICAL = (
    "PatientID,Task 1,Task 2,CenterID,Gender,Age,Weight,Tobacco,Alcohol,Performance status,"
    '"HPV status (0=-, 1=+)",Surgery,Chemotherapy'
)


def write_2022(root: Path, patients: list[str]) -> Path:
    """Images, labels and both tables of 2022 for these patients; every second one relapses after 100 days."""
    for seed, patient in enumerate(patients):
        save(root / "imagesTr" / f"{patient}__CT.nii.gz", ct(seed=seed))
        save(root / "imagesTr" / f"{patient}__PT.nii.gz", pet(seed=100 + seed))
        save(root / "labelsTr" / f"{patient}.nii.gz", label())
    rows = [f"{p},1,1,1,M,{60 + i},80,,0,1.0,1,,1" for i, p in enumerate(patients)]
    (root / "hecktor2022_clinical_info_training.csv").write_text("\n".join([CLINICAL, *rows]) + "\n")
    ends = [f"{p},{i % 2},{100 * (2 - i % 2)}" for i, p in enumerate(patients)]
    (root / "hecktor2022_endpoint_training.csv").write_text("\n".join(["PatientID,Relapse,RFS", *ends]) + "\n")
    return root


@pytest.fixture
def disk() -> SimpleNamespace:
    return SimpleNamespace(save=save, ct=ct, pet=pet, label=label, cohort=write_2022)


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[..., Path]:
    def build(*patients: str) -> Path:
        return write_2022(tmp_path / "cohort", list(patients or ("CHUM-001", "CHUM-002", "HMR-001")))

    return build


@pytest.fixture
def shared_data() -> Path:
    if not (SHARED / "sts7").is_dir():
        pytest.skip("the shared real data is not beside this checkout")
    return SHARED.resolve()
