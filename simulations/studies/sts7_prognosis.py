"""Prognosis from records, from frozen CT and PET features, and from both: the arms of `survival_table` on images.

Features are the frozen backbone's pooled embedding of each volume. PET goes through the same encoder in the CT's place,
scaled like it: nothing is trained, so what a feature is worth shows in the linear model alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from client.data.case import Case, untold_of
from client.data.dataset import CaseSet
from client.data.images.cache import VolumeCache
from client.data.layouts import find_cases
from common.backbones import load_backbone
from common.config.run import Run
from common.config.step import Step
from common.config.task import PrognosisTask
from common.data.batch import CT, PET
from common.data.records import MODEL_VARIABLES, encode_records, record_layout
from common.errors import DataError, UnknownName
from common.exact.columns import Layout, Rows
from simulations.studies.options.prognosis import Sts7PrognosisStudy
from simulations.studies.page import Page
from simulations.studies.survival_table import add_inputs, check_cohort, cohort_table, lead
from simulations.survival.cohort import Cohort

RECORDS = "records"
AT_ONCE = 4  # cases encoded together

Features = dict[str, dict[str, np.ndarray]]  # modality -> patient -> (C,)


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Every arm on every set of inputs of a folder with images."""
    study: Sts7PrognosisStudy = run.study
    for parts in study.inputs.values():
        for part in parts:
            if part not in (RECORDS, CT, PET):
                raise UnknownName("input", part, (RECORDS, CT, PET), where="study.inputs")
    cases = _cases(Path(run.data.root))
    check_cohort(cases, study)
    modalities = sorted({part for parts in study.inputs.values() for part in parts} - {RECORDS})
    features = encode(run, study, cases, modalities)
    page = Page("Prognosis from records and images: STS", lead(study, cases), tables=[cohort_table(cases)])
    for name, parts in study.inputs.items():
        cohort = cohort_of(cases, features, parts, study)
        say(f"{name}: {len(cohort.layout.names)} columns, {sum(map(len, cases.values()))} patients")
        add_inputs(page, name, cohort, study, say)
    return page


def _cases(root: Path) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    everyone = find_cases(root)
    if untold := untold_of(everyone):
        raise DataError(untold)
    for case in everyone:
        if case.days is not None and CT in case.images and PET in case.images:
            found.setdefault(case.center, []).append(case)
    if not found:
        raise DataError(f"No case under '{root}' has an outcome, a CT and a PET; set data.root.")
    return found


def encode(run: Run, study: Sts7PrognosisStudy, cases: Mapping[str, list[Case]], modalities: Sequence[str]) -> Features:
    """The frozen embedding of every volume of these modalities."""
    if not modalities:
        return {}
    backbone = load_backbone(run.backbone)
    step = Step(name="sts7_prognosis", task=PrognosisTask(), modalities=[CT, PET], view=study.view)
    everyone = [case for group in cases.values() for case in group]
    prepared = CaseSet(everyone, step, cache=VolumeCache(Path(".cache") / "volumes"), skip_unreadable=False)
    found: Features = {modality: {} for modality in modalities}
    for positions in prepared.in_order(AT_ONCE):
        batch = prepared.collate(positions)
        for modality in modalities:
            with torch.no_grad():
                pooled = backbone({CT: batch.inputs[modality]}, {CT: batch.present[modality]}, {}).pooled["image"]
            for row, position in enumerate(positions):
                found[modality][prepared.cases[position].patient] = pooled[row].double().numpy()
    return found


def cohort_of(
    cases: Mapping[str, list[Case]], features: Features, parts: Sequence[str], study: Sts7PrognosisStudy
) -> Cohort:
    """Patients as numbers: the named inputs side by side."""
    images = [part for part in parts if part != RECORDS]
    widths = {part: len(next(iter(features[part].values()))) for part in images}
    layout = Layout(tuple(f"{part}.{i}" for part, width in widths.items() for i in range(width)))
    recorded = record_layout(study.variables or MODEL_VARIABLES, with_flags=study.known_flags)
    if RECORDS in parts:
        layout = Layout((), (), (), with_flags=study.known_flags).concat(layout).concat(recorded)
    rows = {}
    for center, group in cases.items():
        flags, blocks = np.zeros((len(group), 0)), [np.stack([features[p][c.patient] for c in group]) for p in images]
        if RECORDS in parts:
            values, flags = encode_records([case.record for case in group], recorded)
            blocks.append(values)
        target = np.array([[case.days, case.event] for case in group], np.float64)
        rows[center] = Rows(np.concatenate(blocks, axis=1), flags, target)
    return Cohort(dict(cases), rows, layout)
