"""One lineage of a run as a MONAI bundle: configuration, program, adapter, and a card that says how it was tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.load import from_json
from common.config.run import BackboneSpec
from common.errors import BankError
from common.files import write_bytes, write_json
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank, Entry
from common.store.bases import Bases
from common.store.ledger import Ledger
from common.store.tested import in_words, known_by_key, score_in, scores_by_key
from server.bundle.configs import CROPPED_BEFORE, inference, metadata
from server.bundle.peft import write_peft
from server.bundle.program import write_program
from server.run.folder import RunFolder

CARD = """# {lineage}

{description}

**Research use only, not for diagnosis.** Made by fedgraft from the run `{run}`; adapter `{key}`, frozen model `{base}`.

## How it was tested

{scores}

## Use it

    python -m monai.bundle run --config_file configs/inference.json --bundle_root .

It needs torch {torch} and MONAI {monai}, and nothing of fedgraft. Put images into `input/{first}/` (NIfTI{more});
{output}.
{cropped}
## What it was trained on

Centers: {centers}. The program holds the frozen model `{kind}` with the adapter inside: the licence of that model's
weights holds for it.
{known}
## Files

- `models/model.pt2`: the program, `torch.export.load(...).module()`; takes (1, {channels}, {window}), as z, y, x.
- `models/adapter.safetensors`: the adapter alone, by fedgraft's names.
{peft}"""


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
    config: Any = OmegaConf.to_container(OmegaConf.load(folder.config))
    backbone = _base_of(bank, entry, config["backbone"])
    model = AdaptedModel(backbone, entry.step, seed=0)
    model.load(bank.get(entry.key))
    model.eval()
    configs = {"inference": inference(entry.step)}  # what cannot be a bundle is said before anything is written
    outputs = _outputs(model, write_program(out / "models" / "model.pt2", model))
    events = Ledger(folder.ledger).events()
    card = scores_by_key(events).get(entry.key)
    modes = list((card or {}).get("modes", {})) or [""]
    tested = [in_words(score_in(card, mode)) for mode in modes] + _by_center(events, entry)
    description = f"{entry.step.task.kind} on {entry.step.region} from {'+'.join(entry.step.modalities)}; {tested[0]}"
    configs["metadata"] = metadata(
        entry.step, outputs=outputs, title=lineage, description=description, version=f"0.0.0+{entry.key[:12]}"
    )
    for name, content in configs.items():
        write_json(out / "configs" / f"{name}.json", content)
    write_bytes(out / "models" / "adapter.safetensors", (folder.bank / entry.key / "state.safetensors").read_bytes())
    parts = write_peft(out / "models", model, backbone)
    known = known_by_key(events).get(entry.key, {})
    text = _card(entry, events[0]["run"], configs["metadata"], tested, known, parts, config["backbone"]["kind"])
    write_bytes(out / "docs" / "README.md", text.encode())
    return out


def _base_of(bank: AdapterBank, entry: Entry, spec: dict[str, Any]) -> Backbone:
    """The frozen model that an entry stands on, grown where it grew."""
    backbone = load_backbone(from_json(BackboneSpec, json.dumps(spec)))
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


def _outputs(model: AdaptedModel, channels: int) -> list[str]:
    """What each channel of the output is."""
    task: Any = model.task
    if task.kind == "segmentation":
        return ["background", *task.structures]
    if task.kind == "classification" and len(task.classes) == channels:
        return [f"logit of {name}" for name in task.classes]
    return [f"output {place} of {task.kind}" for place in range(channels)]


def _by_center(events: list[dict[str, Any]], entry: Entry) -> list[str]:
    """The step's own test scores of each center, as its last event of learning has them."""
    found = []
    for event in (e for e in events if e["kind"] in ("step_finished", "step_rescored") and e["key"] == entry.key):
        rows = [
            r for r in event.get("scores", []) if r["step"] == event["step"] == r["task"] and r["center"] != "pooled"
        ]
        metric = event.get("primary", {}).get(event["step"])
        found = [
            f"{row['center']} ({row['mode']}): {row['metric']} {row['value']:.3f} on {int(row['n'] or 0)} cases"
            for row in rows
            if row["metric"] == metric and row["value"] is not None
        ]
    return found


def _card(
    entry: Entry, run: str, meta: dict[str, Any], tested: list[str], known: dict[str, Any], parts: list[str], kind: str
) -> str:
    step = entry.step
    is_mask = step.task.kind == "segmentation"
    cropped = (
        f"The view's crop is `{step.view.crop}`, a rule of fedgraft's that MONAI has no transform for: give it images "
        "that are already that box (`python -m client predict` finds it by itself).\n"
        if step.view.crop in CROPPED_BEFORE
        else ""
    )
    return CARD.format(
        lineage=entry.lineage,
        description=meta["description"],
        run=run,
        key=entry.key,
        base=entry.base,
        scores="\n".join(f"- {line}" for line in tested),
        torch=meta["pytorch_version"],
        monai=meta["monai_version"],
        first=step.modalities[0],
        more="" if len(step.modalities) == 1 else f", and one folder for each of {', '.join(step.modalities[1:])}",
        output="masks lie in `output/`" if is_mask else "the output is the evaluator's `pred`",
        cropped=cropped,
        centers=", ".join(entry.centers) or "not recorded",
        kind=kind,
        known=f"\nOutputs are read by: `{json.dumps(known)}`.\n" if known else "",
        channels=len(step.modalities),
        window=", ".join(map(str, step.view.window)),
        peft="".join(f"- `models/{name}/`: the part `{name}` in peft's own format.\n" for name in parts),
    )
