"""study=phantom_prognosis: prognosis heads on frozen features, for every input, loss and way to learn.

Encoders are frozen, so every patient is encoded once per backbone and only the adapters after it are trained (UNICON's
post-model adaptation); that is what makes several hundred models affordable. Beside the arms stand the ceiling of the
true hazard, the same backbone frozen at random weights, and federated Newton: a linear Cox model, fitted exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from common.config.run import Run
from server.run.folder import RunFolder
from simulations.comparison.patients import open_centers
from simulations.studies.page import Page
from simulations.studies.phantom_prognosis.cohort import cohort_of
from simulations.studies.phantom_prognosis.page import page_of
from simulations.studies.phantom_prognosis.training import table_of, tested_risks, train
from simulations.studies.phantom_prognosis.yardsticks import newton_risks
from simulations.virtual.centers import data_roots, write_centers


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    folder = Path(run.out) / run.name
    torch.set_num_threads(run.runtime.threads)
    files, _ = write_centers(run, RunFolder(folder), data_roots(run))
    files = {code: path for code, path in files.items() if code != "CHEST"}
    for random in (False, True):
        say(f"features of the {'random' if random else 'pre-trained'} backbone")
        table_of(run, folder, random)
    train(run, overrides, folder, say)
    cohort = cohort_of(run, open_centers(files))
    risks = tested_risks(run, folder, cohort)
    say("federated Newton")
    risks |= newton_risks(run, folder, open_centers(files), cohort)
    say("resampling patients")
    return page_of(run, cohort, risks, Path(run.data.root))
