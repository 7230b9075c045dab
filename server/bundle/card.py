"""A bundle's card: what it is for, how it was tested at each center, under what licence, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from common.config.step import Step
from common.store.bank import Entry
from common.store.tested import in_words, score_in, scores_by_key

CROPPED_BEFORE = ("head_neck", "foreground")  # rules without a MONAI transform
RUN = "from monai.bundle import run; run(config_file='configs/inference.json', bundle_root='.')"
CARD = """# {lineage}

{description}

**Research use only, not for diagnosis.** Made by fedgraft from the run `{run}`; adapter `{key}`, frozen model `{base}`.

## How it was tested

{scores}

## Use it

    python -c "{command}"

in this folder. It needs torch {torch} and MONAI {monai}, and nothing of fedgraft. With the package `fire` the same is
`python -m monai.bundle run --config_file configs/inference.json --bundle_root .`. MONAI evaluates what a bundle's
configuration says as Python: run bundles of people you trust only. Put NIfTI images into {folders}, one file a patient,
in one order; {output}.
{notes}
## What it was trained on

Centers: {centers}. The program holds the frozen model with the adapter inside. {licence}
{known}
## Files

- `models/model.pt2`: the program, `torch.export.load(...).module()`; takes (1, {channels}, {window}), as z, y, x.
- `models/adapter.safetensors`: the adapter alone, by fedgraft's names.
- `scripts/grid.py`: the grid of the images, which MONAI has no transform for; numpy, torch and MONAI alone.
- `configs/origin.json`: run, adapter, frozen model, and the SHA-256 of every file.
{peft}"""


def score_lines(events: list[dict[str, Any]], entry: Entry) -> list[str]:
    """An adapter's test scores, pooled by mode and of each center, or that it was never scored."""
    card = scores_by_key(events).get(entry.key)
    modes = list((card or {}).get("modes", {})) or [""]
    return [in_words(score_in(card, mode)) for mode in modes] + _by_center(events, entry)


def _by_center(events: Iterable[Mapping[str, Any]], entry: Entry) -> list[str]:
    """The step's own test scores of each center, as its last event of learning has them."""
    found: list[str] = []
    for event in events:
        if event["kind"] in ("step_finished", "step_rescored") and event["key"] == entry.key:
            metric = event.get("primary", {}).get(event["step"])
            found = [_center_line(row) for row in event.get("scores", []) if _is_center(row, event["step"], metric)]
    return found


def _is_center(row: Mapping[str, Any], step: str, metric: str | None) -> bool:
    own = row["step"] == step == row["task"] and row["center"] != "pooled"
    return own and row["metric"] == metric and row["value"] is not None


def _center_line(row: Mapping[str, Any]) -> str:
    return f"{row['center']} ({row['mode']}): {row['metric']} {row['value']:.3f} on {int(row['n'] or 0)} cases"


def card_of(
    entry: Entry,
    *,
    run: str,
    metadata: Mapping[str, Any],
    tested: list[str],
    known: Mapping[str, Any],
    peft: list[str],
    licence: str,
) -> str:
    """``docs/README.md`` of a bundle.

    Args:
        tested: `score_lines`.
        known: what outputs are read by (`common.store.tested.known_by_key`).
        peft: parts that are there in peft's own format.
    """
    step = entry.step
    is_mask = step.task.kind == "segmentation"
    return CARD.format(
        lineage=entry.lineage,
        description=metadata["description"],
        run=run,
        key=entry.key,
        base=entry.base,
        scores="\n".join(f"- {line}" for line in tested),
        command=RUN,
        torch=metadata["pytorch_version"],
        monai=metadata["monai_version"],
        folders=" and ".join(f"`input/{name}/`" for name in step.modalities),
        output=f"{'masks' if is_mask else 'outputs'} lie in `output/`",
        notes="".join(f"\n{line}\n" for line in _notes(step)),
        centers=", ".join(entry.centers) or "not recorded",
        licence=licence,
        known=f"\nOutputs are read by: `{json.dumps(known)}`.\n" if known else "",
        channels=len(step.modalities),
        window=", ".join(map(str, step.view.window)),
        peft="".join(f"- `models/{name}/`: the part `{name}` in peft's own format.\n" for name in peft),
    )


def _notes(step: Step) -> list[str]:
    """What this bundle does not do by itself."""
    found = []
    if step.view.crop in CROPPED_BEFORE:
        found.append(
            f"The view's crop is `{step.view.crop}`, a rule of fedgraft's that MONAI has no transform for: give it "
            "images that are already that box (`python -m client predict` finds it by itself)."
        )
    task: Any = step.task
    if task.kind == "segmentation" and (task.largest_component or task.smallest_ml > 0):
        found.append(
            "`python -m client predict` also leaves out pieces of a mask (all but the largest, or those that are too "
            "small), as the task declares; this bundle does not."
        )
    return found
