"""DP-SGD's options. Every one is public: nothing here may be computed from how many patients a center truly has."""

from __future__ import annotations

from dataclasses import dataclass

from common.config.privacy.base import PatientPrivacy


@dataclass
class DpSgd(PatientPrivacy):
    """DP-SGD, the patient as its unit: each patient's gradient is clipped, and noise hides whose are in the sum."""

    clip: float = 1.0  # the longest that one patient's gradient may be, over everything that trains
    batch: int = 8  # patients expected in a draw, each with the probability batch / cohort; the sum is divided by it
    draws: int = 0  # of patients in a round, an optimizer step each; 0: cohort / batch, rounded up, for each epoch
    kind: str = "dp_sgd"  # the one of batches; an exact fit has noised_sums; to have none, privacy=none
