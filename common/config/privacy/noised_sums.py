"""Options of an exact fit on noised sums; every one is public."""

from __future__ import annotations

from dataclasses import dataclass

from common.config.privacy.base import PatientPrivacy


@dataclass
class NoisedSums(PatientPrivacy):
    """Noise on the sums of an exact fit (federation=newton), the patient as its unit: columns are brought into public
    ranges, so no patient adds more than a public bound, and ``rounds`` questions are all that is asked."""

    clip: float = 2.0  # the longest that one patient's columns may be, each brought into a public range before
    kind: str = "noised_sums"  # the one of exact fits; training by batches has dp_sgd; to have none, privacy=none
