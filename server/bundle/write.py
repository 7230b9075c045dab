"""One lineage of a run as a MONAI bundle: configuration, program, adapter, and a card that says how it was tested."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.declared import harmonizes
from common.config.load import from_json
from common.config.run import BackboneSpec
from common.config.step import Step
from common.errors import BankError
from common.files import write_bytes, write_json
from common.materials.licences import licence_of
from common.model.adapted import AdaptedModel
from common.runtime.release import version
from common.store.bank import AdapterBank, Entry
from common.store.bases import Bases
from common.store.exported import file_digest
from common.store.ledger import Ledger
from common.store.tested import known_by_key
from server.bundle.card import card_of, score_lines
from server.bundle.configs import inference, metadata
from server.bundle.peft import write_peft
from server.bundle.program import write_program
from server.run.folder import RunFolder, read_config

ORIGIN, PROGRAM, ADAPTER = "configs/origin.json", "models/model.pt2", "models/adapter.safetensors"
FORMAT = 1


def write_bundle(folder: RunFolder, lineage: str, out: Path) -> Path:
    """Write a lineage's head to a new folder; the folder.

    Raises:
        BankError: the folder exists, the lineage was never learned, or it cannot be a bundle of images.
        BackboneError: the run's frozen model is not here.
    """
    if out.exists():
        raise BankError(f"{out} exists; name a new folder.")
    bank = AdapterBank(folder.bank)
    entry = bank.entry(bank.head(lineage))
    if harmonizes(entry.step):
        raise BankError(
            f"'{lineage}' reads features that were harmonized by center, and a bundle holds no center's location and "
            "scale; export another lineage."
        )
    spec = backbone_of(folder)
    backbone = base_of(bank, entry, spec)
    model = AdaptedModel(backbone, entry.step, seed=0)
    model.load(bank.get(entry.key))
    model.eval()
    configs = {"inference": inference(entry.step)}  # what cannot be a bundle is said before anything is written
    outputs = _outputs(model, write_program(out / PROGRAM, model))
    events = Ledger(folder.ledger).events()
    tested = score_lines(events, entry)
    configs["metadata"] = metadata(
        entry.step,
        outputs=outputs,
        title=lineage,
        description=f"{_about(entry.step)}; {tested[0]}",
        version=f"{version()}+{entry.key[:12]}",
    )
    for name, content in configs.items():
        write_json(out / "configs" / f"{name}.json", content)
    write_bytes(out / ADAPTER, (folder.bank / entry.key / "state.safetensors").read_bytes())
    write_bytes(out / "scripts" / "grid.py", (Path(__file__).parent / "grid.py").read_bytes())
    write_bytes(out / "scripts" / "__init__.py", b"")
    text = card_of(
        entry,
        run=events[0]["run"],
        metadata=configs["metadata"],
        tested=tested,
        known=known_by_key(events).get(entry.key, {}),
        peft=write_peft(out / "models", model, backbone),
        licence=licence_of(spec).sentence,
    )
    write_bytes(out / "docs" / "README.md", text.encode())
    write_json(out / ORIGIN, _origin(out, entry, events[0]["run"], spec))
    return out


def backbone_of(folder: RunFolder) -> BackboneSpec:
    """The frozen model that a run was configured with."""
    return from_json(BackboneSpec, json.dumps(read_config(folder)["backbone"]))


def base_of(bank: AdapterBank, entry: Entry, spec: BackboneSpec) -> Backbone:
    """The frozen model that an entry stands on, grown where it grew. Raises BankError where it is another one."""
    backbone = load_backbone(spec)
    digest = backbone_digest(backbone)
    if entry.base == digest:
        return backbone
    bases = Bases(bank)
    ref = bases.ref(entry.base)
    if ref is None or ref.root != digest:
        raise BankError(
            f"'{entry.lineage}' was learned on the frozen model {entry.base[:12]}, the run's configuration gives "
            f"{digest[:12]}; export it where that model's weights are."
        )
    return bases.build(entry.base, backbone, root_digest=digest)


def _origin(out: Path, entry: Entry, run: str, spec: BackboneSpec) -> dict[str, Any]:
    """What the bundle was made of; paths of the coordinator's machine are left out."""
    named = replace(spec, weights=None, text_folder=None)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        "format": FORMAT,
        "release": version(),
        "run": run,
        "lineage": entry.lineage,
        "adapter": entry.key,
        "base": entry.base,
        "backbone": f"{named.kind} {named.config}",
        "licence": licence_of(spec).spdx,
        "files": {path.relative_to(out).as_posix(): file_digest(path) for path in files},
    }


def _about(step: Step) -> str:
    return f"{step.task.kind} on {step.region} from {'+'.join(step.modalities)}"


def _outputs(model: AdaptedModel, channels: int) -> list[str]:
    """What each channel of the output is."""
    task: Any = model.task
    if task.kind == "segmentation":
        return ["background", *task.structures]
    if task.kind == "classification" and len(task.classes) == channels:
        return [f"logit of {name}" for name in task.classes]
    return [f"output {place} of {task.kind}" for place in range(channels)]
