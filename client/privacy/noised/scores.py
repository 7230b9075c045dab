"""Scores of a center's patients with noise on them: two sums, each patient's part of them at most a public length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from client.privacy.noised.sums import short
from client.privacy.streams import Stream
from common.privacy.plan import ScorePlan
from common.privacy.scores import Ratio
from common.privacy.scores.task import ABOVE, BELOW, VARIANCE
from common.protocol.messages import Sums
from common.tasks import Observation


def noised_scores(
    ratio: Ratio, observations: Sequence[Observation], patients: Sequence[str], *, plan: ScorePlan, noise: Stream
) -> Sums:
    """What leaves of some records: the two sums of a task's ratio, with the plan's noise, and that noise's variance.

    Args:
        patients: whose record each is; several of one patient count as one.
        noise: a stream that nobody else knows.
    """
    bound = ratio.longest(plan.cohort)
    total = bounded(ratio, observations, patients, cohort=plan.cohort)
    scale = plan.noise * bound
    above, below = (total + scale * noise.normals(total.size).reshape(total.shape)).copy()
    return {ABOVE: above, BELOW: below, VARIANCE: np.array(scale**2)}


def bounded(ratio: Ratio, observations: Sequence[Observation], patients: Sequence[str], *, cohort: int) -> np.ndarray:
    """Both sums (2, E) without noise: a patient more or less changes them by at most the ratio's ``longest``."""
    by_patient: dict[str, list[Observation]] = {}
    for patient, record in zip(patients, observations, strict=True):
        by_patient.setdefault(patient, []).append(record)
    total = np.zeros((2, len(ratio.entries)))
    if ratio.pairs:
        first = [by_patient[patient][0] for patient in sorted(by_patient)][:cohort]
        return np.stack(ratio.parts(first)) if first else total
    for records in by_patient.values():
        total += short(np.stack(ratio.parts(records)), ratio.longest(cohort))
    return total
