"""One adapter's answer about one examination, as files that a hospital's archive takes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from client.dicom.results.codes import Coded
from client.dicom.results.origin import Author, Origin, save
from client.dicom.results.report import has_report, report
from client.dicom.results.segmentation import segmentation
from client.dicom.results.structure_set import structure_set
from common.config.step import Step
from common.tasks import build_task
from common.tasks.segmentation import Segmentation


def write_answer(
    stem: Path,
    labels: np.ndarray | None,
    answer: Mapping[str, Any],
    step: Step,
    origin: Origin,
    *,
    codes: Mapping[str, Coded],
    author: Author,
) -> list[str]:
    """Names of the DICOM files of an answer; none of a mask without a voxel.

    Args:
        labels: the label map (columns, rows, slices) of a segmentation; None of an answer in numbers.
    """
    task = build_task(step.task)
    if labels is None or not isinstance(task, Segmentation):
        return write_report(stem, answer, origin, author=author)
    return write_mask(stem, task.inside(labels), origin, codes=codes, author=author, now=datetime.now())


def write_mask(
    stem: Path,
    masks: Mapping[str, np.ndarray],
    origin: Origin,
    *,
    codes: Mapping[str, Coded],
    author: Author,
    now: datetime,
) -> list[str]:
    """STEM.seg.dcm and STEM.rtstruct.dcm of the structures that were found; names of the files, none where none was.

    Args:
        masks: structure -> bool (columns, rows, slices), perhaps empty.
    """
    found = {name: mask for name, mask in masks.items() if mask.any()}
    if not found:
        return []
    objects = {
        "seg": segmentation(found, origin, codes, author),
        "rtstruct": structure_set(found, origin, codes, author, now=now),
    }
    return [_save(stem, kind, one) for kind, one in objects.items()]


def write_report(stem: Path, answer: Mapping[str, Any], origin: Origin, *, author: Author) -> list[str]:
    """STEM.sr.dcm of an answer with numbers; the file's name, none where there are no numbers."""
    return [_save(stem, "sr", report(answer, origin, author))] if has_report(answer) else []


def _save(stem: Path, kind: str, one: Any) -> str:
    path = stem.with_name(f"{stem.name}.{kind}.dcm")
    save(path, one)
    return path.name
