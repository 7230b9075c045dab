"""Where HECKTOR 2026's containers find a patient, and where they leave what they say of one (FACTS of the challenge).

In: ``images/ct/*.mha``, ``images/pet/*.mha``, ``ehr.json``. Out: ``images/head-neck-tumor-segmentation/output.mha`` on
the CT's grid, ``t-stage.json`` and ``n-stage.json`` (a string each), ``rfs.json`` (days: larger is later).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.data.hecktor.mapping import plain, read_cell, says_unknown, shipped_mappings
from common.data.records import SCHEMA, Value
from common.errors import DataError

MASK, T_STAGE, N_STAGE, RFS = (
    "images/head-neck-tumor-segmentation/output.mha",
    "t-stage.json",
    "n-stage.json",
    "rfs.json",
)
STAGES = {"t_stage": T_STAGE, "n_stage": N_STAGE}
STRUCTURES = ["GTVp", "GTVn"]  # 1 and 2 of the mask
TABLE = "2025 and 2026"  # the mapping in configs/mapping whose columns ehr.json has


def only_image(folder: Path, name: str) -> Path:
    """The one ``.mha`` below ``images/<name>``. Raises DataError."""
    found = sorted((folder / "images" / name).glob("*.mha"))
    if len(found) != 1:
        raise DataError(f"{folder / 'images' / name} holds {len(found)} .mha files; a patient has one.")
    return found[0]


def read_ehr(path: Path) -> tuple[dict[str, Value], list[str]]:
    """The record that ``ehr.json`` holds, and which of its fields said what no record can; empty where there is none.

    Raises:
        DataError: it is no JSON object.
    """
    if not path.exists():
        return {}, []
    try:
        told = json.loads(path.read_text())
        cells = {plain(name): value for name, value in told.items() if value is not None}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no JSON object ({type(error).__name__}).") from error
    mapping = next(one for one in shipped_mappings() if one.name == TABLE)
    record: dict[str, Value] = {}
    refused = []
    for name, source in mapping.variables.items():
        cell = str(cells.get(source.column, "")).strip()
        if not cell or says_unknown(cell, source.values, SCHEMA[name].levels):
            continue
        try:
            value = read_cell(SCHEMA[name], cell, source.values)
        except ValueError:
            refused.append(f"{source.column} is not {SCHEMA[name].expected}; it is left out.")
            continue
        if value is not None:
            record[name] = value
    return record, refused


def days_of(answer: Mapping[str, Any]) -> float:
    """A number that is larger the later a relapse is expected: the mean relapse-free time within the curve's span in
    days; without a curve minus the risk."""
    if "days" not in answer:
        return -float(answer["risk"])
    days = np.concatenate([[0.0], answer["days"]])
    free = np.concatenate([[1.0], answer["relapse_free"]])
    return float(np.sum((free[1:] + free[:-1]) / 2 * np.diff(days)))


def stage_of(answer: Mapping[str, Any]) -> str:
    """The most probable class, as the challenge writes stages: T2."""
    probabilities: Mapping[str, float] = answer["probabilities"]
    return max(probabilities, key=lambda name: probabilities[name]).upper()


def absent(written: Sequence[str]) -> list[str]:
    """What the challenge asks for and the bank could not answer."""
    return sorted({MASK, RFS, *STAGES.values()} - set(written))
