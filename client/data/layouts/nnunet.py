"""nnU-Net folders as they are: ``dataset.json``, ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``.

Versions 2 (``channel_names``, labels by name, lists for regions, ``ignore``) and 1 (``modality``, labels by number).
Such a folder says nothing about centers: ``centers.csv`` in it does (columns case and center), else the letters that
the cases' names begin with, where there are two or more such beginnings.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from client.data.case import Case
from client.data.layouts.declared import structure_values, whole_number
from client.data.layouts.layout import CenterRule, Layout, Options
from client.data.layouts.matching import cases_of
from common.errors import DataError

FILE = "dataset.json"
CENTERS = "centers.csv"
ENDINGS = (".nii.gz", ".nii")
BACKGROUND, IGNORE = "background", "ignore"


def is_nnunet(folder: Path) -> bool:
    """Whether the folder has nnU-Net's description."""
    try:
        described = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(described, dict) and "labels" in described and bool({"channel_names", "modality"} & {*described})


def read_nnunet(folder: Path, center: str | None, options: Options) -> list[Case]:
    """The training cases of an nnU-Net folder. Raises DataError where ``dataset.json`` cannot be used."""
    described = _described(folder / FILE)
    problems: list[str] = []
    layout = _layout(folder, described, problems)
    if problems:
        raise DataError([f"nnU-Net's '{FILE}': {problem}" for problem in problems])
    cases = cases_of(folder, layout, center, options)
    promised = described.get("numTraining")
    if center is None and isinstance(promised, int) and promised != len(cases):
        options.notes.append(f"'{FILE}' promises {promised} training cases and there are {len(cases)}.")
    return cases


def _described(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text(), object_pairs_hook=_once)
    except (OSError, ValueError) as error:
        raise DataError(
            f"nnU-Net's '{path}' cannot be read as JSON ({type(error).__name__}); set data.root to the folder of one "
            "dataset, as in nnUNet_raw/Dataset001_TUMOR."
        ) from error
    if not isinstance(described, dict):
        raise DataError(f"nnU-Net's '{path}' is no description of a dataset; it must hold channel_names and labels.")
    return described


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand once each: Python's reader would take the later of two values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"nnU-Net's '{FILE}': '{double[0]}' stands twice; keep one of them.")
    return found


def _layout(folder: Path, described: dict[str, Any], problems: list[str]) -> Layout:
    ending = str(described.get("file_ending", ".nii.gz"))
    if ending not in ENDINGS:
        problems.append(f"file_ending is '{ending}'; NIfTI files are read ({', '.join(ENDINGS)}): convert the images.")
    channels = described.get("channel_names", described.get("modality"))
    if not isinstance(channels, dict) or not channels or not all(str(key).isdigit() for key in channels):
        problems.append('it has no channel_names; write them as in {"0": "CT", "1": "PET"}.')
        channels = {}
    names = {str(key): modality_name(str(name)) for key, name in channels.items()}
    if len(set(names.values())) < len(names):
        problems.append(f"its channels {', '.join(names.values())} are not told apart by their names; name them anew.")
    labels = _labels(described.get("labels"), problems)
    if labels is None:
        problems.append('it has no labels; write them as in {"background": 0, "tumor": 1}.')
        labels = {}
    ignore = labels.pop(IGNORE, None)
    if ignore is not None and not isinstance(ignore, int):
        problems.append(f"its label 'ignore' is '{ignore}'; write the one whole number that means 'not drawn'.")
    labels.pop(BACKGROUND, None)
    structures = structure_values(labels, problems)
    ordered = sorted(names, key=int)
    return Layout(
        name=f"the nnU-Net layout of '{described.get('name') or folder.name}'",
        images={names[key]: f"imagesTr/{{case}}_{int(key):04d}{ending}" for key in ordered},
        reference=names[ordered[0]] if ordered else "",
        label=f"labelsTr/{{case}}{ending}",
        structures=structures,
        ignore=ignore if isinstance(ignore, int) else None,
        center=center_rule(folder),
    )


def center_rule(folder: Path) -> CenterRule:
    """``centers.csv`` where there is one, else the beginnings of the cases' names."""
    return CenterRule(table=CENTERS) if (folder / CENTERS).is_file() else CenterRule(guess=True)


def modality_name(channel: str) -> str:
    """A channel's name in capitals: 'T1-Gd' is T1_GD, 'PT' is PET."""
    name = re.sub(r"\W+", "_", channel.strip()).strip("_").upper()
    name = f"M{name}" if not name[:1].isalpha() else name
    return {"PT": "PET"}.get(name, name)[:16]


def _labels(labels: Any, problems: list[str]) -> dict[str, Any] | None:
    """Values by name, of either version."""
    if not isinstance(labels, dict) or not labels:
        return None
    if all(str(key).isdigit() for key in labels):  # version 1: {"0": "background", "1": "tumor"}
        names = [str(name) for name in labels.values()]
        problems += [
            f"several of its label values are called '{name}'; name them apart, or make them one value."
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        return {str(name): int(key) for key, name in labels.items()}
    return {str(name): whole_number(value) for name, value in labels.items()}
