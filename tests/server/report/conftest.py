"""A ledger's worth of events from an invented run: seven centers and CHEST, five steps, with the usual accidents."""

from __future__ import annotations

import math

import pytest

CENTERS = ["CHUM", "CHUP", "CHUS", "CHUV", "MDA", "HGJ", "HMR"]
TEST_CASES = {"CHUM": 3, "CHUP": 3, "CHUS": 4, "CHUV": 3, "MDA": 9, "HGJ": 3, "HMR": 2, "CHEST": 24}
PLAN = {
    "chest": ("classification", ["CT"], 0, ["CHEST"], "auroc"),
    "relapse": ("prognosis", ["CT", "EHR"], 5, CENTERS[:6], "c_index"),
    "tumour_ct": ("segmentation", ["CT"], 6, CENTERS[:6], "dice"),
    "tumour_ctpet": ("segmentation", ["CT", "PET"], 4, CENTERS[:5], "dice"),
    "hmr": ("segmentation", ["CT", "PET"], 3, ["HMR"], "dice"),
}
PARTS = {
    "chest": {},
    "relapse": {"within": 24_576, "mlp": 8_448, "fusion": 6_240, "head": 780},
    "tumour_ct": {"within": 24_576, "head": 61_203},
    "tumour_ctpet": {"within": 24_576, "stem.pet": 8_192, "skip.pet": 1_736, "head": 61_203},
    "hmr": {"within": 24_576, "stem.pet": 8_192, "skip.pet": 1_736, "head": 61_203},
}
FINAL = {"chest": 0.811, "relapse": 0.664, "tumour_ct": 0.507, "tumour_ctpet": 0.681, "hmr": 0.655}


def wave(*seed: object) -> float:
    """A number in [-1, 1] that depends on nothing but its arguments."""
    return math.sin(sum((i + 1) * ord(c) for i, c in enumerate("|".join(map(str, seed)))))


def time(minute: float) -> str:
    return f"2026-03-04T10:{int(minute):02d}:{int(60 * (minute % 1)):02d}Z"


def score_rows(step: str, tasks: list[str]) -> list[dict]:
    """One row per task and center, then pooled; HMR's relapse score is suppressed, HGJ's has no comparable pair."""
    rows = []
    for task in tasks:
        centers = PLAN[task][3]
        for center in centers if task in ("chest", "hmr") else [*centers, "HMR"] if task == "relapse" else centers:
            spread = 0.0 if len(centers) == 1 else 0.09
            value: float | None = round(FINAL[task] + spread * wave(task, center), 4)
            n: int | None = TEST_CASES[center]
            if (task, center) == ("relapse", "HMR"):
                value, n = None, None
            if (task, center) == ("relapse", "HGJ"):
                value = None
            rows.append(_row(step, task, center, value, n))
        rows.append(_row(step, task, "pooled", FINAL[task], sum(TEST_CASES[c] for c in centers)))
    return rows


def _row(step: str, task: str, center: str, value: float | None, n: int | None) -> dict:
    _, modalities, _, _, metric = PLAN[task]
    return {
        "step": step,
        "task": task,
        "metric": metric,
        "center": center,
        "mode": "+".join(modalities),
        "value": value,
        "n": n,
    }


def round_event(step: str, number: int) -> dict:
    _, _, _, centers, metric = PLAN[step]
    adapter = 4 * sum(PARTS[step].values())
    failed = {"CHUV": "data"} if (step, number) == ("tumour_ct", 2) else {}
    replied = [c for c in centers if c not in failed]
    progress = 1 - math.exp(-0.7 * number)
    return {
        "kind": "round_finished",
        "time": time(8 + number),
        "step": step,
        "round": number,
        "state_hash": f"{step}-{number}",
        "train": {
            c: {
                "loss": round(1.9 - 1.1 * progress + 0.12 * wave(step, c) + 0.03 * wave(step, c, number), 4),
                "cases": 4 * TEST_CASES[c],
                "steps": TEST_CASES[c],
                "seconds": 1.5 + TEST_CASES[c] / 4,
            }
            for c in replied
        },
        "validation": {
            "metric": metric,
            "pooled": round(FINAL[step] * (0.55 + 0.45 * progress), 4),
            "centers": {
                c: None
                if (step, c) == ("relapse", "HGJ")
                else round(FINAL[step] * (0.5 + 0.5 * progress) + 0.06 * wave(c, step), 4)
                for c in replied
            },
        },
        "bytes": {c: {"up": adapter + 2_300, "down": adapter + 4_100} for c in replied},
        "failed": failed,
        "seconds": {"train": 6.2, "validate": 1.4, "aggregate": 0.02, "overhead": 0.11},
    }


def survival_counts() -> dict:
    days = [365.25 * 5 / 12 * (i + 1) for i in range(12)]
    return {
        "grid_days": days,
        "at_risk": [[14, 14, 13, 12, 11, 10, 8, 7, 5, 4, 2, 1], [13, 11, 9, 8, 6, 5, 4, 3, 3, 2, 1, 1]],
        "events": [[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], [2, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0]],
        "threshold": 0.412,
        "reliability_days": 365.25 * 2.5,
        "reliability": {
            "cases": [5.0, 9.0, 6.0, 0.0, 4.0, 0.0, 2.0, 0.0, 1.0, 0.0],
            "predicted": [0.3, 1.4, 1.5, 0.0, 1.8, 0.0, 1.3, 0.0, 0.85, 0.0],
            "observed": [0.0, 2.1, 1.0, 0.0, 2.4, 0.0, 1.2, 0.0, 1.15, 0.0],
        },
    }


def finished_event(step: str, position: int, rounds: int) -> dict:
    seen = list(PLAN)[: position + 1]
    return {
        "kind": "step_finished",
        "time": time(14 + position),
        "step": step,
        "task": step,
        "lineage": step,
        "key": f"{position}" * 16 if rounds else "",
        "kept_round": max(0, rounds - 1),
        "scores": score_rows(step, seen),
        "metrics": {task: PLAN[task][4] for task in seen},
        "curves": {"relapse": survival_counts()} if "relapse" in seen else {},
        "seconds": 4.0 + 8.1 * rounds,
    }


def step_events(step: str, position: int) -> list[dict]:
    _, _, rounds, centers, _ = PLAN[step]
    refused = {"HGJ": "no PET at this center"} if step == "tumour_ctpet" else {}
    begun = {
        "kind": "step_started",
        "time": time(8),
        "step": step,
        "centers": centers,
        "refused": refused,
        "parts": PARTS[step],
        "adapter_bytes": 4 * sum(PARTS[step].values()),
        "counts": {
            c: {
                "train": 4 * TEST_CASES[c] if rounds else 0,
                "validation": TEST_CASES[c] if rounds else 0,
                "test": TEST_CASES[c],
            }
            for c in centers
        },
    }
    return [begun, *(round_event(step, r) for r in range(1, rounds + 1)), finished_event(step, position, rounds)]


def run_events() -> list[dict]:
    """All events of the invented run, in ledger order."""
    begun = {
        "kind": "run_started",
        "time": time(0),
        "run": "quickstart",
        "curriculum": "quickstart",
        "seed": 1,
        "arm": "federated",
        "backbone": {
            "kind": "ct_clip",
            "config": "mini",
            "digest": "9f3c" * 16,
            "parameters": 1_874_944,
            "bytes": 7_499_776,
            "text": "mini BERT",
        },
        "base": "b1a5" * 16,
        "environment": {
            "python": "3.12.4",
            "torch": "2.13.0+cpu",
            "flwr": "1.41.0",
            "platform": "Linux x86_64",
            "cores": 2,
            "device": "cpu",
        },
        "data": {
            "kind": "phantom",
            "root": "data/phantom",
            "synthetic": True,
            "note": "Phantom cohort, scale 0.2, seed 11; the true hazard's C-index is 0.83.",
        },
        "steps": {
            name: {"task": p[0], "modalities": p[1], "rounds": p[2], "parts": list(PARTS[name]), "metric": p[4]}
            for name, p in PLAN.items()
        },
    }
    start = {"kind": "start_scores", "time": time(1), "step": "start", "scores": score_rows("start", ["chest"])}
    steps = [event for position, step in enumerate(PLAN) for event in step_events(step, position)]
    verified = {
        "kind": "verified",
        "time": time(20),
        "changed_bits": dict.fromkeys(PLAN, 0),
        "base_after": "b1a5" * 16,
        "seconds": 9.4,
        "released_bytes": {"relapse": 2_118_000, "tumour_ct": 3_402_000, "tumour_ctpet": 3_911_000, "hmr": 3_911_000},
        "released_model_bytes": 1_145_000_000,
    }
    return [begun, start, *steps, verified]


@pytest.fixture
def events() -> list[dict]:
    return run_events()
