"""Scorer: sums from the centers, each asked for once per state, and the rows of the score matrix made from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from safetensors.numpy import save

from common.backbones.base import tensors_digest
from common.config.load import step_to_json
from common.data.modality_sets import mode_label, scored_modes
from common.data.subgroups import apart, levels_of
from common.privacy.scores import NoisedScores
from common.protocol.declaration import keeps_state
from common.protocol.messages import Order, Sums
from common.protocol.wire import declared_scores
from common.store.ledger import Ledger
from common.store.sums import read_sums, write_sums
from common.tasks import Task, merge_sums
from common.tasks.base import subgroup_scores
from server.centers.federation import UNREACHED, Federation
from server.centers.quarantine import GUARDED, record_rejected
from server.centers.roster import Roster
from server.centers.screening import expected_of_task, screen
from server.learning.exact.harmonized import corrected
from server.masking.scores import scored_securely
from server.run.folder import RunFolder

SUMMED, OF = "summed", "fit.of"  # in the place of a center, the sum of several; in it, a 1 for each that is in it


class Scorer:
    """Asks centers to score a state and remembers what they said, by state and center."""

    def __init__(self, federation: Federation, folder: RunFolder, ledger: Ledger):
        self.federation, self.folder, self.ledger = federation, folder, ledger
        self.roster = Roster(ledger)
        self.unused: dict[tuple[str, str], str] = {}  # (step, center) -> the code of an answer without scores

    def sums(self, order: Order, task: Task, centers: Sequence[str]) -> dict[str, Sums]:
        """Sums by center; a center whose result is suppressed or failed has no entry."""
        return {c: sums for c, sums in self._answers(order, task, centers).items() if "suppressed" not in sums}

    def _answers(self, order: Order, task: Task, centers: Sequence[str]) -> dict[str, Sums]:
        """What each center said, a suppressed result included; who is silent is asked once more, then has no entry.
        Of a step with secure sums there is one entry, `SUMMED`."""
        if order.step.federation.secure_aggregation:
            return self._summed(order, task, centers)
        digest = tensors_digest(order.state)
        orders = self._own_orders(order, centers)
        keys = {center: _key(own, digest, center) for center, own in orders.items()}
        found = {center: sums for center, key in keys.items() if (sums := read_sums(self.folder.evaluation(key)))}
        silent = set(keys) - set(found)
        for _ in range(2):
            reachable = {center: keys[center] for center in sorted(silent) if center in self.federation.nodes}
            if reachable:
                silent = self._fetch(order, task, reachable, orders)
        fresh = {center: read_sums(self.folder.evaluation(keys[center])) for center in set(keys) - set(found)}
        found |= {center: sums for center, sums in fresh.items() if sums}
        return {center: found[center] for center in keys if center in found}

    def _summed(self, order: Order, task: Task, centers: Sequence[str]) -> dict[str, Sums]:
        """The sum of the centers' scores and, as ``fit.of``, whose are in it; asked for once, as single answers are."""
        named = sorted(set(centers))
        path = self.folder.evaluation(_key(order, tensors_digest(order.state), f"sum of {','.join(named)}"))
        if sums := read_sums(path):
            return {SUMMED: sums}
        held = {center: self.roster.registered(center, order.subset) for center in named}
        there = [center for center in named if held[center] != 0 and center in self.federation.nodes]
        orders = self._own_orders(order, there)
        counts = [held[center] for center in orders]
        most = None if None in counts else float(sum(count or 0 for count in counts))
        found = scored_securely(self.federation, orders, task, most=most)
        event = {"step": order.step.name, "subset": order.subset, "mode": mode_label(order.step, order.mode)}
        said = {"failed": found.failed, **({"why": found.why} if found.why else {})}
        self.ledger.append("scored", {**event, "bytes": found.bytes, "secure_sum": {"of": found.centers, **said}})
        if not found.sums:
            return {}
        sums = {**found.sums, OF: np.array([float(center in found.centers) for center in named])}
        write_sums(path, sums)
        return {SUMMED: sums}

    def _own_orders(self, order: Order, centers: Sequence[str]) -> dict[str, Order]:
        """The order as each center gets it: its own tensors are those of its last used round up to the kept one."""
        made: dict[tuple[int, bool, int], Order] = {}
        before = self.roster.earlier(order.step.name) if keeps_state(order.step) else {}
        found: dict[str, Order] = {}
        met, stays = self.roster.met, order.since > 0 and keeps_state(order.step)
        for center in self.roster.askable(centers):
            since = self.roster.last_used(center, order.step.name, upto=order.since) if stays else order.since
            key = (since, center in met, before.get(center, 0))
            found[center] = made.setdefault(key, replace(order, since=since, met=key[1], earlier=key[2]))
            found[center] = corrected(self.ledger, found[center], center)
        return found

    def _fetch(self, order: Order, task: Task, keys: dict[str, str], orders: Mapping[str, Order]) -> set[str]:
        """Ask, and say in the ledger what it took before any answer is kept: a killed run loses no byte of those.

        Returns the centers that said nothing; one whose answer was stopped has answered, and is not struck twice.
        """
        shapes = declared_scores(order, task)
        exchange = self.federation.ask_each({center: orders[center] for center in keys}, "evaluate")
        mode = mode_label(order.step, order.mode)
        event = {"step": order.step.name, "subset": order.subset, "mode": mode, "bytes": exchange.bytes}
        self.ledger.append("scored", event)
        needed = set(apart(shapes)[0]) - {"fit.batches"}
        for center, reply in sorted(exchange.replies.items()):
            most = self.roster.registered(center, order.subset)
            expected = expected_of_task(task, shapes, cases=most, needed=needed)
            rejection = screen(reply, replace(expected, empty="suppressed" in reply.counts))
            self.unused.pop((order.step.name, center), None)
            if rejection:
                self.unused[order.step.name, center] = rejection.code
                record_rejected(self.ledger, center, rejection, step=order.step.name, action="evaluate")
            else:
                write_sums(self.folder.evaluation(keys[center]), reply.sums or {"suppressed": np.ones(1)})
        return {center for center, reply in exchange.replies.items() if reply.code == UNREACHED}

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
        if order.step.federation.secure_aggregation:
            # Of the same centers each time: sums of others would tell them apart.
            summed = self._answers(order, task, pooled_over).get(SUMMED, Sums())
            return _summed_rows(order, task, summed, sorted(set(pooled_over)), label=label)
        answers = self._answers(order, task, centers)
        by_center = {center: sums for center, sums in answers.items() if "suppressed" not in sums}
        missing = sorted(set(pooled_over) - set(by_center))
        known: dict[str, Any] = {"step": label, "task": order.step.name, "mode": mode_label(order.step, order.mode)}
        lost = set(missing) - self.roster.gone - (set(answers) - self._scored_before(known))
        pooled = [] if lost else [by_center[center] for center in pooled_over if center in by_center]
        rows: list[dict[str, Any]] = []
        for center, sums in [*by_center.items(), ("pooled", merge_sums(pooled))]:
            cases, metrics, beside = _read(task, sums)
            late = {} if center in {*pooled_over, "pooled"} else {"joined": True}
            rows += [
                {**known, "metric": m, "center": center, "value": v, "n": cases, **beside.get(m, {}), **late}
                for m, v in metrics.items()
            ]
        if missing:  # a score over fewer centers must not look like one over all
            rows = [row | {"missing": missing} if row["center"] == "pooled" else row for row in rows]
        silent = sorted(set(centers) - set(by_center))
        empty = {**known, "metric": task.primary, "value": None, "n": None}
        return rows + [
            {**empty, "center": c, **({} if c in answers else self._why(order.step.name, c))} for c in silent
        ]

    def _why(self, step: str, center: str) -> dict[str, str]:
        """What the row of a center without an answer says."""
        code = self.unused.get((step, center), UNREACHED)
        said = "no answer" if code == UNREACHED else f"{'stopped' if code in GUARDED else 'refused'}: {code}"
        return {"why": said}

    def _scored_before(self, known: Mapping[str, Any]) -> set[str]:
        """Centers with a score of the task in the mode on record: a later one without them is over other patients."""
        events = [*self.ledger.events("start_scores"), *self.ledger.events("step_finished")]
        rows = [row for event in events for row in event.get("scores", []) if row["value"] is not None]
        return {row["center"] for row in rows if (row["task"], row["mode"]) == (known["task"], known["mode"])}

    def by_subgroup(
        self, order: Order, task: Task, centers: Sequence[str], *, label: str, pooled_over: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Rows like those of `score` for each level of the step's subgroups: at every center that tells it, and pooled
        over those of ``pooled_over``; a level that none of them tells has a pooled row without a value."""
        order.subset = "test"
        rows: list[dict[str, Any]] = []
        for mode in scored_modes(order.step) if task.by_subgroup and order.step.subgroups else []:
            answers = {c: apart(s)[1] for c, s in self.sums(replace(order, mode=mode), task, centers).items()}
            known = {"step": label, "task": order.step.name, "mode": mode_label(order.step, mode)}
            for level in levels_of(order.step):
                told = {center: by_level[level] for center, by_level in answers.items() if level in by_level}
                pooled = [center for center in pooled_over if center in told]
                for where, parts in [*((c, [c]) for c in told), ("pooled", pooled)]:
                    sums = merge_sums([told[center] for center in parts])
                    head = {**known, "subgroup": level, "center": where, "told_by": len(parts)}
                    rows += _level_rows(task, sums, head)
        return rows

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


def _summed_rows(order: Order, task: Task, sums: Sums, centers: Sequence[str], *, label: str) -> list[dict[str, Any]]:
    """Rows of a task whose scores are known as a sum alone: pooled, with the centers that are not in it."""
    known = {"step": label, "task": order.step.name, "mode": mode_label(order.step, order.mode), "center": "pooled"}
    cases, metrics, beside = _read(task, sums)
    cases = cases if sums else None
    there = sums[OF] if sums else np.zeros(len(centers))
    missing = [center for center, is_in in zip(centers, there, strict=True) if not is_in]
    late = {"missing": missing} if missing else {}
    return [{**known, "metric": m, "value": v, "n": cases, **beside.get(m, {}), **late} for m, v in metrics.items()]


def _read(task: Task, sums: Sums) -> tuple[int | None, dict[str, float | None], dict[str, dict[str, float]]]:
    """Of sums: how many cases they are over (None where noise hides it), the metrics, and what stands beside each: its
    interval, or the standard deviation of its noise."""
    if isinstance(task, NoisedScores):
        noise = task.noise(sums) if sums else {}
        metrics: dict[str, float | None] = task.metrics(sums) if sums else {task.primary: None}
        return None, metrics, {name: {"noise": float(f"{found:.4g}")} for name, found in noise.items()}
    if not sums:
        return 0, {task.primary: None}, {}
    own = _own(sums)
    cases = int(sums.get("cases", sums.get("fit.cases", 0)))  # the second may be told in steps of a minimum
    return cases, task.metrics(own), {name: _interval(found) for name, found in task.intervals(own).items()}


def _interval(found: tuple[float, float] | None) -> dict[str, float]:
    return {} if found is None else {"low": found[0], "high": found[1]}


def _level_rows(task: Task, sums: Sums, known: dict[str, Any]) -> list[dict[str, Any]]:
    if not sums:
        return [{**known, "metric": metric, "value": None, "n": None} for metric in task.by_subgroup]
    return [
        {**known, "metric": metric, "value": value, "n": int(sums["cases"]), **_interval(interval)}
        for metric, (value, interval) in subgroup_scores(task, sums).items()
    ]


def _own(sums: Sums) -> Sums:
    return {name: value for name, value in apart(sums)[0].items() if not name.startswith(("fit.", "km_"))}


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
        *([order.continues, str(order.earlier)] if order.earlier else []),
        center,
    ]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
