"""Running a study: the registry of what each kind does with a composed run, and the page that it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.config.run import Run
from common.errors import UnknownName
from common.plugins import Registry
from simulations.studies import (
    aggregation,
    attacks,
    pemma_fusion,
    phantom_prognosis,
    privacy,
    sts7_prognosis,
    survival_table,
    unicon_prognosis,
    unicon_segmentation,
)
from simulations.studies.continual import methods as continual_methods
from simulations.studies.continual import vlm as continual_vlm
from simulations.studies.curricula import medcoss, medseqft
from simulations.studies.page import Page, write_page

Study = Callable[[Run, Sequence[str], Callable[[str], None]], Page]

STUDIES: Registry[Study] = Registry(
    "study",
    "build",
    {
        "aggregation": aggregation.run,
        "attacks": attacks.run,
        "continual_methods": continual_methods.run,
        "continual_vlm": continual_vlm.run,
        "medcoss": medcoss.run,
        "medseqft": medseqft.run,
        "pemma_fusion": pemma_fusion.run,
        "phantom_prognosis": phantom_prognosis.run,
        "privacy": privacy.run,
        "sts7_prognosis": sts7_prognosis.run,
        "survival_table": survival_table.run,
        "unicon_prognosis": unicon_prognosis.run,
        "unicon_segmentation": unicon_segmentation.run,
    },
)


def study_folder(run: Run) -> Path:
    """Where a study's page goes."""
    return Path(run.out) / (run.name if run.name != run.curriculum else f"study-{run.study.kind}")


def run_study(run: Run, overrides: Sequence[str], *, folder: Path, say: Callable[[str], None] = print) -> Page:
    """Run or continue the study that a run names, write its page into ``folder`` and return it."""
    kind = str(getattr(run.study, "kind", None))
    if kind not in STUDIES:
        raise UnknownName("study", kind, STUDIES)
    began = time.perf_counter()
    page = STUDIES[kind](run, overrides, say)
    page.seconds = time.perf_counter() - began
    page.command = f"python -m simulations compare {' '.join(overrides)}"
    write_page(folder, page)
    return page
