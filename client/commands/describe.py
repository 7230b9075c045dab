"""Show what the server may learn of this center before a step: counts only, none of them small.

A count from 1 up to the minimum is shown as "<5" (or whatever the minimum is), and so is one that leaves so few others
that they could be counted. With --curriculum, also the split of each of its steps, which is what `describe` replies.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from client.commands.files import add_center, add_run, center_of, run_of

if TYPE_CHECKING:
    from client.center.center import Center
    from client.data.case import Case

EXAMPLE = "python -m client describe --center center.yaml --curriculum quickstart"
MINIMUM = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--minimum", type=int, default=MINIMUM, help="smallest count that is shown (5)")
    add_run(parser, help="also the counts that each step of this curriculum would be answered with")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """Print the counts."""
    from client.center.center import Center
    from client.privacy.record import waiting_at

    center = Center(center_of(arguments), keeps_split=False)  # to look fixes nothing
    minimum = max(arguments.minimum, center.config.policy.minimum_cell)
    found: dict[str, Any] = {
        "center": center.code,
        "minimum": minimum,
        "counts": suppressed(case_counts(center.cases), minimum=minimum),
        "split": split_sentence(center),
    }
    if waiting := waiting_at(center.vault, center.cases, minimum=center.config.policy.minimum_cell):
        found["waiting"] = waiting
    if overrides := run_of(arguments):
        found["steps"] = step_counts(center, overrides)
    print(json.dumps(found, indent=1) if arguments.json else _text(found))
    return 0


def split_sentence(center: Center) -> str:
    """Who trains, validates and tests here, and since when that is fixed."""
    from client.policy import test_folds
    from client.vault.cohort import read_cohort
    from client.vault.folds import said

    return said(read_cohort(center.vault), center.config.split, test_folds(center.config.policy))


ASKED: dict[str, Callable[[Case], bool]] = {
    "with a label": lambda case: case.label is not None,
    "with a clinical record": lambda case: bool(case.record),
    "with HPV status": lambda case: "hpv" in case.record,
    "with an outcome": lambda case: case.event is not None,
    "with a relapse": lambda case: case.event == 1,
    "with chest findings": lambda case: case.findings is not None,
}


def case_counts(cases: Sequence[Case]) -> dict[str, int]:
    """Patients, and how many of them have what."""
    from common.data.batch import CT, PET, volumes_of

    images = volumes_of((CT, PET, *(name for case in cases for name in case.images)))
    shown = {f"with {name}": sum(name in case.images for case in cases) for name in images}
    return {"patients": len(cases)} | shown | {name: sum(map(asked, cases)) for name, asked in ASKED.items()}


def suppressed(counts: dict[str, int], *, minimum: int) -> dict[str, int | str]:
    """Counts of which none, and no difference from the number of patients, lies between 0 and the minimum."""
    total = counts["patients"]
    small = f"<{minimum}"
    if 0 < total < minimum:
        return dict.fromkeys(counts, small)
    return {
        name: small if 0 < count < minimum else f">{total - minimum}" if 0 < total - count < minimum else count
        for name, count in counts.items()
    }


def step_counts(center: Center, overrides: Sequence[str]) -> dict[str, dict[str, int | str]]:
    """By step, the reply's code and its counts of usable cases: exactly what this center answers."""
    from client.center.config import own_files
    from client.policy import check_cases, check_order
    from client.privacy.release import told
    from common.backbones import backbone_digest, load_backbone
    from common.config.load import compose_run
    from common.config.run import PARTS
    from common.errors import PolicyRefusal
    from common.protocol.messages import OK, Order

    run = compose_run(overrides)
    base = backbone_digest(load_backbone(own_files(center.config, run.backbone)))
    found: dict[str, dict[str, int | str]] = {}
    for name, step in run.steps.items():
        order = Order(step, run.seed, 0, run.backbone, base, run.data.split)
        found[name], cell = {"code": OK}, center.minimum(order).cell
        try:
            check_order(center.config.policy, order)
            found[name] |= {part: told(len(center.part(order, part)), cell) for part in PARTS}
            if step.rounds > 0:
                check_cases(center.config.policy, len(center.part(order, "train")))
        except PolicyRefusal as refusal:
            found[name]["code"] = refusal.code
    return found


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['center']}: what may be told about it (counts below {found['minimum']} are not)"]
    lines += [f"  {name:<24}{count}" for name, count in found["counts"].items()]
    lines.append(found["split"])
    if "waiting" in found:
        lines.append(f"  {found['waiting']} new patients wait to be counted in exact sums and scores")
    for step, counts in found.get("steps", {}).items():
        told = ", ".join(f"{name} {count}" for name, count in counts.items() if name != "code")
        lines.append(f"  step {step:<19}{counts['code']}{': ' + told if told else ''}")
    if "steps" in found:
        lines.append("The counts by step are the reply itself; they are told in whole steps of policy.minimum_cell.")
    return "\n".join(lines)
