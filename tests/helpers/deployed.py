"""Three hospitals with folders of their own, and the tiny run that they take part in: for tests of tests/e2e."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.errors import FedgraftError
from server.deploy.processes import nginx_program
from simulations.virtual.loopback import Loopback
from tests.helpers.small import write_cohort

SIZES = {"CHUM": 6, "CHUP": 5, "MDA": 7}
VIEW = [f"steps.{step}.view.{key}=[16,16,16]" for step in ("tumour_ct", "tumour_ctpet") for key in ("size", "window")]


def roots(base: Path) -> dict[str, Path]:
    """Each hospital's own data folder."""
    return {code: write_cohort(base / f"{code}-data", {code: count}) for code, count in SIZES.items()}


def need_nginx() -> None:
    """Skip what stands behind nginx where there is none; in CI that is a failure."""
    try:
        nginx_program()
    except FedgraftError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def start_nodes(fed: Loopback, *codes: str) -> None:
    """Start hospitals' nodes side by side and wait for all of them."""
    for code in codes:
        fed.start_node(code, wait=False)
    for code in codes:
        fed.wait(lambda code=code: "SuperNode ID" in fed.node_log(code), what=f"the node of {code}", name=code)


def overrides(name: str, *more: str, centers: tuple[str, ...] = tuple(SIZES)) -> list[str]:
    """Two steps on the tiny backbone, 16 voxels a side; every named center trains and is evaluated."""
    named = f"[{','.join(centers)}]"
    where = [f"steps.{s}.{key}={named}" for s in ("tumour_ct", "tumour_ctpet") for key in ("centers", "evaluate_at")]
    return ["curriculum=smoke", f"name={name}", *VIEW, *where, *more]


def one_step(name: str, *more: str, centers: tuple[str, ...] = tuple(SIZES)) -> list[str]:
    """The first of the two steps alone."""
    words = [word for word in overrides(name, centers=centers) if not word.startswith("steps.tumour_ctpet")]
    return [*words, "~steps.tumour_ctpet", *more]
