"""Scorer: sums from the centers, each asked for once per state, and the rows of the score matrix made from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save

from common.backbones.base import tensors_digest
from common.config.load import step_to_json
from common.data.modality_sets import mode_label, scored_modes
from common.files import write_bytes
from common.protocol.messages import Order, Sums
from common.protocol.wire import declared_sums
from common.store.ledger import Ledger
from common.tasks import Task, merge_sums
from server.centers.federation import Federation
from server.centers.screening import missing_in_scores, reason_to_reject
from server.run.folder import RunFolder


class Scorer:
    """Asks centers to score a state and remembers what they said, by state and center."""

    def __init__(self, federation: Federation, folder: RunFolder, ledger: Ledger):
        self.federation, self.folder, self.ledger = federation, folder, ledger

    def sums(self, order: Order, task: Task, centers: Sequence[str]) -> dict[str, Sums]:
        """Sums by center; a center whose result is suppressed or failed has no entry."""
        digest = tensors_digest(order.state)
        keys = {center: _key(order, digest, center) for center in sorted(centers)}
        found = self._stored(keys)
        reachable = [center for center in keys if center not in found and center in self.federation.nodes]
        if reachable:
            self._fetch(order, task, {center: keys[center] for center in reachable})
            found = self._stored(keys)
        return {center: sums for center, sums in found.items() if "suppressed" not in sums}

    def _stored(self, keys: dict[str, str]) -> dict[str, Sums]:
        """Answers that are on disk; one that cannot be read is as good as none, and asked for again."""
        found: dict[str, Sums] = {}
        for center, key in keys.items():
            path = self.folder.evaluation(key)
            try:
                if path.exists():
                    found[center] = load_arrays(path)
            except SafetensorError:
                path.unlink()
        return found

    def _fetch(self, order: Order, task: Task, keys: dict[str, str]) -> None:
        """Ask, and say in the ledger what it took before any answer is kept: a killed run loses no byte of those."""
        shapes = declared_sums(task, curves=order.wants_curves)
        exchange = self.federation.ask(keys, order, "evaluate")
        mode = mode_label(order.step, order.mode)
        event = {"step": order.step.name, "subset": order.subset, "mode": mode, "bytes": exchange.bytes}
        self.ledger.append("scored", event)
        for center, reply in exchange.usable.items():
            reason = reason_to_reject(reply, state_like={}, sum_shapes=shapes)
            if (reason or missing_in_scores(reply, sum_shapes=shapes)) is None:
                write_bytes(self.folder.evaluation(keys[center]), save(reply.sums or {"suppressed": np.ones(1)}))

    def score(
        self,
        order: Order,
        task: Task,
        centers: Sequence[str],
        *,
        label: str,
        pooled_over: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Rows for one task: every metric in every mode at every center, and pooled over ``pooled_over`` (default:
        all)."""
        order.subset = "test"
        over = centers if pooled_over is None else pooled_over
        modes = [replace(order, mode=mode) for mode in scored_modes(order.step)]
        return [row for asked in modes for row in self._rows(asked, task, centers, label=label, pooled_over=over)]

    def _rows(
        self, order: Order, task: Task, centers: Sequence[str], *, label: str, pooled_over: Sequence[str]
    ) -> list[dict[str, Any]]:
        by_center = self.sums(order, task, centers)
        pooled = [by_center[c] for c in pooled_over if c in by_center]
        known: dict[str, Any] = {"step": label, "task": order.step.name, "mode": mode_label(order.step, order.mode)}
        rows: list[dict[str, Any]] = []
        for center, sums in [*by_center.items(), ("pooled", merge_sums(pooled))]:
            cases = int(sums["fit.cases"]) if "fit.cases" in sums else 0
            metrics = task.metrics(_own(sums)) if sums else {task.primary: None}
            intervals = task.intervals(_own(sums)) if sums else {}
            rows += [
                {**known, "metric": m, "center": center, "value": v, "n": cases, **_interval(intervals.get(m))}
                for m, v in metrics.items()
            ]
        silent = sorted(set(centers) - set(by_center))
        return rows + [{**known, "metric": task.primary, "center": c, "value": None, "n": None} for c in silent]

    def curves(self, order: Order, task: Task, centers: Sequence[str]) -> dict[str, Any]:
        """Kaplan-Meier counts by predicted-risk group and predicted against observed shares, summed over centers."""
        order.subset = "test"
        pooled = merge_sums(list(self.sums(order, task, centers).values()))
        found: dict[str, Any] = {}
        if "km_at_risk" in pooled:
            days = [float(day) for day in getattr(task, "cuts", ())]
            found |= {"grid_days": days, "threshold": order.threshold, "reliability_days": days[len(days) // 2]}
            found |= {"at_risk": pooled["km_at_risk"].tolist(), "events": pooled["km_events"].tolist()}
        if "reliability_cases" in pooled:
            names = ("cases", "predicted", "observed")
            found["reliability"] = {name: pooled[f"reliability_{name}"].tolist() for name in names}
        if "temperature" in order.known:
            found["temperature"] = float(order.known["temperature"])
        return found


def _interval(found: tuple[float, float] | None) -> dict[str, float]:
    return {} if found is None else {"low": found[0], "high": found[1]}


def _own(sums: Sums) -> Sums:
    return {name: value for name, value in sums.items() if not name.startswith(("fit.", "km_"))}


def _key(order: Order, digest: str, center: str) -> str:
    parts = [
        step_to_json(order.step),
        digest,
        order.base,
        json.dumps(asdict(order.split)),
        order.subset,
        order.mode,
        repr(order.threshold),
        hashlib.sha256(save({name: np.asarray(v, np.float64) for name, v in order.known.items()})).hexdigest(),
        str(order.minimum_cell),
        str(order.since),
        center,
    ]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
