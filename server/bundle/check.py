"""A bundle beside the run that it says it was made of: its files, its frozen model, and what its program answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from common.errors import BankError
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from common.store.exported import file_digest
from server.bundle.write import FORMAT, ORIGIN, PROGRAM, backbone_of, base_of
from server.run.folder import RunFolder

LEFT_BY_USE = ("input", "output")  # folders that whoever uses a bundle puts beside it


def origin_of(folder: Path) -> dict[str, Any]:
    """What a bundle was made of, after every file's hash was compared.

    Raises:
        BankError: it is no bundle of ours, of another format, or a file is not as it was written.
    """
    try:
        origin = json.loads((folder / ORIGIN).read_text())
        files = dict(origin["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BankError(f"{folder} is no bundle of fedgraft's: {ORIGIN} is not there or cannot be read.") from error
    if origin.get("format") != FORMAT:
        raise BankError(f"{folder} is a bundle of format {origin.get('format')}; this release reads {FORMAT}.")
    present = {name: file_digest(folder / name) for name in _files(folder)}
    wrong = sorted(name for name in {*files, *present} if files.get(name) != present.get(name))
    if wrong:
        raise BankError(f"{folder} was changed after it was exported: {', '.join(wrong)}; export it again.")
    return dict(origin)


def _files(folder: Path) -> list[str]:
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    apart = (*LEFT_BY_USE, "__pycache__")
    return [path.as_posix() for path in found if path.as_posix() != ORIGIN and not set(apart) & set(path.parts)]


def check_against(folder: Path, run: RunFolder) -> float:
    """How far the bundle's program is from the run's own adapter on a fixed input, at most: about 1e-6.

    Raises:
        BankError: the bundle was changed, was learned on another frozen model, or the run lacks its adapter.
        BackboneError: the run's frozen model is not here.
    """
    origin, bank = origin_of(folder), AdapterBank(run.bank)
    held = bank.holds(origin["adapter"])  # an earlier one of a lineage may stand on a base that no head stands on
    bases = sorted({bank.entry(key).base for key in bank.heads().values()})
    if not held and origin["base"] not in bases:
        raise BankError(
            f"{folder} was learned on the frozen model {origin['base'][:12]} ({origin['backbone']}), the adapters of "
            f"{run.path} on {', '.join(base[:12] for base in bases) or 'none'}: what it learned means nothing on "
            "another model. Compare it with the run that it was exported from, "
            f"'{origin['run']}'."
        )
    if not held:
        raise BankError(f"{run.path} does not hold the adapter {origin['adapter'][:12]} that {folder} was made of.")
    entry = bank.entry(origin["adapter"])
    model = AdaptedModel(base_of(bank, entry, backbone_of(run)), entry.step, seed=0)
    model.load(bank.get(entry.key))
    model.eval()
    shape = (1, len(model.modalities), *entry.step.view.window)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    inputs = {name: image[:, place : place + 1] for place, name in enumerate(model.modalities)}
    present = {name: torch.ones(1, dtype=torch.bool) for name in inputs}
    with torch.no_grad():
        found = torch.export.load(folder / PROGRAM).module()(image)
        return float((found - model(inputs, present)).abs().max())
