"""python -m simulations accept: is a frozen model of shapes better than random weights, and than no model at all?

It is accepted where both differences exclude zero on real cases set aside and on every fresh phantom. Each cohort and
arm is kept as it is done, so that a stopped acceptance goes on; what is finished is opened once and only told again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from common.backbones import backbone_digest, load_backbone
from common.config.run import BackboneSpec
from common.errors import ConfigError
from common.files import write_json
from common.metrics import Estimate, Resampled, bootstrap_weights
from simulations.pretraining.acceptance.arms import AT_RANDOM, PRETRAINED, WITHOUT, arms
from simulations.pretraining.acceptance.cohorts import Parted, phantom, real

RESULTS = "acceptance.json"
RIVALS = (AT_RANDOM, WITHOUT)
RESAMPLED = 10_000
Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What an acceptance looks at."""

    weights: Path
    config: str
    root: Path  # of the sts7 cases
    phantoms: tuple[int, ...]  # seeds that nothing was chosen by
    scale: float  # of a phantom: share of HECKTOR's 524 patients


def accept(asked: Asked, out: Path, *, say: Callable[[str], None] = print) -> Row:
    """Run or continue an acceptance, and write ``acceptance.json``.

    Raises:
        ConfigError: ``out`` holds the acceptance of other weights, or of other cohorts.
    """
    spec = BackboneSpec(kind="shapes", config=asked.config, weights=str(asked.weights))
    told: Row = {
        "weights": backbone_digest(load_backbone(spec)), "config": asked.config, "phantoms": list(asked.phantoms),
        "scale": asked.scale, "command": _command(asked, out),
    }  # fmt: skip
    path = out / RESULTS
    earlier = _earlier(path, told)
    if "accepted" in earlier:
        say(f"{path} was finished before; what was set aside is not opened again.")
        return earlier
    found = earlier or told | {"scores": {}}
    for name, cohort in _cohorts(asked, out).items():
        of_cohort = found["scores"].setdefault(name, {})
        for arm, score in ((arm, score) for arm, score in arms(spec).items() if arm not in of_cohort):
            of_cohort[arm] = score(cohort()).tolist()
            write_json(path, found)
            say(f"{name}, {arm}: mean Dice {np.nanmean(of_cohort[arm]):.3f} of {len(of_cohort[arm])} patients")
    rows = [row for name, of_cohort in found["scores"].items() for row in compared(name, of_cohort)]
    found |= {"differences": rows, "accepted": all(row["low"] is not None and row["low"] > 0 for row in rows)}
    write_json(path, found)
    for row in rows:
        say(f"{row['cohort']}: {row['a']} - {row['b']} {row['text']}")
    say(f"accepted: {'yes' if found['accepted'] else 'no'}")
    return found


def compared(cohort: str, scored: Mapping[str, Sequence[float]]) -> list[Row]:
    """The frozen model's means over patients against each rival's, by resampling patients (all of a cohort alike: a
    center has too few to be drawn from by itself)."""
    rows = []
    for rival in RIVALS:
        apart = np.array(scored[PRETRAINED]) - np.array(scored[rival])
        apart = apart[np.isfinite(apart)]
        weights = bootstrap_weights(["one"] * len(apart), draws=RESAMPLED, seed=1)
        found: Estimate = Resampled(float(apart.mean()), weights @ apart / len(apart)).estimate(n=len(apart))
        rows.append({
            "cohort": cohort, "a": PRETRAINED, "b": rival, "value": found.value, "low": found.low, "high": found.high,
            "n": found.n, "text": found.text(signed=True),
        })  # fmt: skip
    return rows


def _cohorts(asked: Asked, out: Path) -> dict[str, Callable[[], Parted]]:
    """By name; phantoms come first, so that the real cases are opened last. Each is prepared when it is needed."""
    cache = out / "cache"
    phantoms = (
        (f"phantom {seed}", _once(lambda seed=seed: phantom(seed, scale=asked.scale, folder=out, cache=cache)))  # type: ignore[misc]
        for seed in asked.phantoms
    )
    return dict(chain(phantoms, [("sts7", _once(lambda: real(asked.root, cache)))]))


def _once(make: Callable[[], Parted]) -> Callable[[], Parted]:
    kept: list[Parted] = []

    def get() -> Parted:
        if not kept:
            kept.append(make())
        return kept[0]

    return get


def _earlier(path: Path, told: Row) -> Row:
    if not path.exists():
        return {}
    found: Row = json.loads(path.read_text())
    other = sorted(name for name in ("weights", "config", "phantoms", "scale") if found[name] != told[name])
    if other:
        raise ConfigError(
            f"{path} is an acceptance with another {' and '.join(other)}; choose another --out. What was set aside "
            "there has been opened for those weights: say so where you report these."
        )
    return found


def _command(asked: Asked, out: Path) -> str:
    seeds = " ".join(map(str, asked.phantoms))
    return (
        f"python -m simulations accept --weights {asked.weights} --config {asked.config} --root {asked.root} "
        f"--phantoms {seeds} --scale {asked.scale:g} --out {out}"
    )
