"""Privacy that a step may ask for: noise which hides whether a patient took part, by public numbers alone."""

from common.config.privacy.dp_sgd import DpSgd, NoPrivacy, cohort_of

PRIVACIES: dict[str, type] = {"dp_sgd": DpSgd}  # closed: no plugin adds to it, since each has a proof behind it

__all__ = ["PRIVACIES", "DpSgd", "NoPrivacy", "cohort_of"]
