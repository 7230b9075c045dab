"""Privacy that a step may ask for: noise which hides whether a patient took part, by public numbers alone."""

from common.config.privacy.base import NoPrivacy, PatientPrivacy, cohort_of, score_cohort_of, scores_are_noised
from common.config.privacy.dp_sgd import DpSgd
from common.config.privacy.noised_sums import NoisedSums

PRIVACIES: dict[str, type] = {  # closed: no plugin adds to it, since each has a proof behind it
    "dp_sgd": DpSgd,
    "noised_sums": NoisedSums,
}

__all__ = [
    "PRIVACIES",
    "DpSgd",
    "NoPrivacy",
    "NoisedSums",
    "PatientPrivacy",
    "cohort_of",
    "score_cohort_of",
    "scores_are_noised",
]
