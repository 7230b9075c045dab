"""What this machine has and lacks for a run: weights, folders, device, cores, disk; torch only for a GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from common.config.backbones import SHIPPED
from common.config.run import Run
from common.errors import ConfigError
from common.runtime.machine import check_device, usable_cores

SMALLEST_GB = 1.0  # a run's checkpoints, bank and report are tens of megabytes; prepared volumes are more


def machine_facts(run: Run) -> list[str]:
    """What is there, one line each."""
    folder = Path(run.out)
    workers = run.runtime.workers or max(1, usable_cores() // max(1, run.runtime.threads))
    return [
        f"cores: {usable_cores()}; {workers} centers at a time, {run.runtime.threads} threads each",
        f"device: {run.runtime.device}",
        f"disk: {_free_gb(folder):,.1f} GB free for '{folder}'",
        f"frozen model: {_weights(run)}",
        f"data: {run.data.root or 'no root'} ({run.data.kind})",
    ]


def machine_problems(run: Run) -> list[str]:
    """What has to be mended before the run can start here, one sentence each."""
    return [*_device(run), *_cores(run), *_disk(Path(run.out)), *_model(run), *_data(run)]


def _weights(run: Run) -> str:
    spec = run.backbone
    if spec.random_seed is not None or spec.kind == "tiny":
        return f"{spec.kind} {spec.config}, drawn from a seed"
    return f"{spec.kind} {spec.config}, {spec.weights or 'the shipped weights'}"


def _device(run: Run) -> Iterator[str]:
    try:
        check_device(run.runtime.device)
    except ConfigError as error:
        yield str(error)


def _cores(run: Run) -> Iterator[str]:
    if run.runtime.threads > usable_cores():
        yield (
            f"runtime.threads is {run.runtime.threads}, but this machine lets us use {usable_cores()} cores; lower it: "
            "more threads than cores slow training down."
        )


def _disk(folder: Path) -> Iterator[str]:
    there = _existing(folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        yield f"'{there}' cannot be written to; choose where runs go with out=FOLDER."
    elif _free_gb(folder) < SMALLEST_GB:
        yield f"There are {_free_gb(folder):.1f} GB free for '{folder}'; free space, or choose another out=FOLDER."


def _model(run: Run) -> Iterator[str]:
    spec = run.backbone
    if spec.weights is not None and not Path(spec.weights).is_file():
        yield f"backbone.weights '{spec.weights}' is not a file; set it to your copy of the checkpoint."
    shipped = (spec.kind, spec.config) == SHIPPED or spec.kind == "tiny"
    if spec.weights is None and spec.random_seed is None and not shipped:
        yield (
            f"Backbone {spec.kind} {spec.config} does not ship with fedgraft; set backbone.weights to your copy of the "
            "checkpoint, or, for the control at random weights, backbone.random_seed."
        )
    if spec.text_folder is not None and not Path(spec.text_folder).is_dir():
        yield f"backbone.text_folder '{spec.text_folder}' is not a folder; set it to your copy of the text model."


def _data(run: Run) -> Iterator[str]:
    data = run.data
    for option, path in (("data.root", data.root), ("data.chest_root", data.chest_root)):
        if data.kind != "phantom" and path and not Path(path).is_dir():
            yield f"{option} '{path}' is not a folder here; set it to where the cases lie."
    for option, path in (("data.mapping", data.mapping), ("data.table", data.table)):
        if path and not Path(path).is_file():
            yield f"{option} '{path}' is not a file here."


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _free_gb(folder: Path) -> float:
    return shutil.disk_usage(_existing(folder)).free / 1e9
