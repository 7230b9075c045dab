"""BraTS and FeTS folders as they are: a folder for each case, with its sequences and ``seg``.

Names of both eras: ``CASE_t1.nii.gz, _t1ce, _t2, _flair, _seg`` (to 2021, FeTS) and ``CASE-t1n, -t1c, -t2w, -t2f,
-seg`` (from 2023). FeTS tells centers by ``partitioning_1.csv`` (Partition_ID, Subject_ID); ``centers.csv`` (case,
center) does in any of them.
"""

from __future__ import annotations

import re
from pathlib import Path

from client.data.case import Case, Values
from client.data.layouts.layout import CenterRule, Layout, Options
from client.data.layouts.matching import cases_of
from client.data.layouts.nnunet import CENTERS, center_rule
from common.errors import DataError

SEQUENCES = {
    "_": {"T1": "t1", "T1CE": "t1ce", "T2": "t2", "FLAIR": "flair"},
    "-": {"T1": "t1n", "T1CE": "t1c", "T2": "t2w", "FLAIR": "t2f"},
}
ENHANCING = {"_": 4, "-": 3}  # the label's value of enhancing tumor
PARTITION = "partitioning_1.csv"


def is_brats(folder: Path) -> bool:
    """Whether some case's folder holds sequences named as BraTS names them."""
    return bool(_eras(folder))


def read_brats(folder: Path, center: str | None, options: Options) -> list[Case]:
    """The cases of a BraTS or FeTS folder. Raises DataError where there is none, or where both eras are mixed."""
    eras = _eras(folder)
    if len(eras) != 1:
        found = "both CASE_t1 and CASE-t1n files" if eras else "neither CASE_t1 nor CASE-t1n files in folders of cases"
        raise DataError(
            f"'{folder}' holds {found}; keep one release of BraTS or FeTS in the folder, or declare the layout in "
            "a YAML."
        )
    [joint] = eras
    return cases_of(folder, _layout(folder, joint, eras[joint]), center, options)


def _eras(folder: Path) -> dict[str, set[str]]:
    """Joint of the names -> the suffixes that are there."""
    found: dict[str, set[str]] = {}
    for path in folder.glob("*/*.nii*"):
        case, name = path.parent.name, re.sub(r"\.nii(\.gz)?$", "", path.name)
        joint, suffix = name[len(case) : len(case) + 1], name[len(case) + 1 :]
        if name.startswith(case) and suffix in {*SEQUENCES.get(joint, {}).values()}:
            found.setdefault(joint, set()).add(suffix)
    return found


def _layout(folder: Path, joint: str, there: set[str]) -> Layout:
    ending = ".nii.gz" if any(folder.glob("*/*.nii.gz")) else ".nii"
    sequences = {modality: suffix for modality, suffix in SEQUENCES[joint].items() if suffix in there}
    labeled = any(folder.glob(f"*/*{joint}seg{ending}"))
    return Layout(
        name="the BraTS layout",
        images={m: f"{{case}}/{{case}}{joint}{suffix}{ending}" for m, suffix in sequences.items()},
        reference=next(iter(sequences)),
        label=f"{{case}}/{{case}}{joint}seg{ending}" if labeled else None,
        structures=_structures(ENHANCING[joint]),
        center=_center(folder),
    )


def _structures(enhancing: int) -> dict[str, Values]:
    """What the label's values are, and the regions that the challenges score."""
    return {
        "necrosis": (1,),
        "edema": (2,),
        "enhancing": (enhancing,),
        "tumor_core": (1, enhancing),
        "whole_tumor": (1, 2, enhancing),
    }


def _center(folder: Path) -> CenterRule:
    if not (folder / CENTERS).is_file() and (folder / PARTITION).is_file():
        return CenterRule(table=PARTITION, case_column="Subject_ID", center_column="Partition_ID")
    return center_rule(folder)
