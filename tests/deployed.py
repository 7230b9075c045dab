"""A tiny real federation for tests/e2e: three hospitals' own folders, and the run that they take part in."""

from __future__ import annotations

from pathlib import Path

from tests.small import write_cohort

SIZES = {"CHUM": 6, "CHUP": 5, "MDA": 7}
VIEW = [f"steps.{step}.view.{key}=[16,16,16]" for step in ("tumour_ct", "tumour_ctpet") for key in ("size", "window")]


def roots(base: Path) -> dict[str, Path]:
    """Each hospital's own data folder."""
    return {code: write_cohort(base / f"{code}-data", {code: count}) for code, count in SIZES.items()}


def overrides(name: str, *more: str, centers: tuple[str, ...] = tuple(SIZES)) -> list[str]:
    """Two steps on the tiny backbone, 16 voxels a side; every named center trains and is evaluated."""
    named = f"[{','.join(centers)}]"
    where = [f"steps.{s}.{key}={named}" for s in ("tumour_ct", "tumour_ctpet") for key in ("centers", "evaluate_at")]
    return ["curriculum=smoke", f"name={name}", *VIEW, *where, *more]
