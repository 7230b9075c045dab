"""The same few patients in every layout: HECKTOR 2022, nnU-Net, BraTS and a declared one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.small import write_cohort

SIZES = {"CHUM": 4, "MDA": 4, "HMR": 3}
NUMBER = {center: place for place, center in enumerate(sorted(SIZES), start=1)}
DECLARED = """\
image: {CT: "{center}/{case}/ct.nii.gz", PET: "{center}/{case}/pet.nii.gz"}
label: "labels/{case}.nii.gz"
structures: {GTVp: 1, GTVn: 2}
"""


def in_hecktor(root: Path, sizes: Mapping[str, int] = SIZES) -> Path:
    """Images, labels and tables of `write_cohort`."""
    return write_cohort(root, sizes)


def in_nnunet(hecktor: Path, root: Path, **described) -> Path:
    """The same files as nnU-Net names them; centers by the beginning of the names."""
    for source, patient in _patients(hecktor):
        case = patient.replace("-", "_")
        _copy(source["CT"], root / "imagesTr" / f"{case}_0000.nii.gz")
        _copy(source["PT"], root / "imagesTr" / f"{case}_0001.nii.gz")
        _copy(source["label"], root / "labelsTr" / f"{case}.nii.gz")
    description = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "GTVp": 1, "GTVn": 2},
        "numTraining": len(_patients(hecktor)),
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description | described))
    return root


def in_declared(hecktor: Path, root: Path, yaml: str = DECLARED) -> Path:
    """The same files in folders of centers and cases, labels apart, and a layout that says so."""
    for source, patient in _patients(hecktor):
        place = root / patient.split("-")[0] / patient
        _copy(source["CT"], place / "ct.nii.gz")
        _copy(source["PT"], place / "pet.nii.gz")
        _copy(source["label"], root / "labels" / f"{patient}.nii.gz")
    (root / "layout.yaml").write_text(yaml)
    return root


def in_brats(hecktor: Path, root: Path, *, joint: str = "_", suffixes: Mapping[str, str] | None = None) -> Path:
    """The same files as sequences of BraTS, with FeTS's table of centers. CT stands as T1, PET as FLAIR."""
    suffixes = suffixes or {"CT": "t1", "PT": "flair"}
    rows = ["Partition_ID,Subject_ID"]
    for source, patient in _patients(hecktor):
        for role, suffix in suffixes.items():
            _copy(source[role], root / patient / f"{patient}{joint}{suffix}.nii.gz")
        _copy(source["label"], root / patient / f"{patient}{joint}seg.nii.gz")
        rows.append(f"{NUMBER[patient.split('-')[0]]},{patient}")
    (root / "partitioning_1.csv").write_text("\n".join(rows) + "\n")
    return root


def _patients(hecktor: Path) -> list[tuple[dict[str, Path], str]]:
    found = []
    for ct in sorted((hecktor / "imagesTr").glob("*__CT.nii.gz")):
        patient = ct.name.removesuffix("__CT.nii.gz")
        label = hecktor / "labelsTr" / f"{patient}.nii.gz"
        found.append(({"CT": ct, "PT": ct.with_name(f"{patient}__PT.nii.gz"), "label": label}, patient))
    return found


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
