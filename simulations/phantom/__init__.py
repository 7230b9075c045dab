"""The phantom: a synthetic HECKTOR and chest cohort, on disk for the real readers or in memory for pretraining."""

from simulations.phantom.chest import ChestCase, chest_case
from simulations.phantom.cohort import CohortCard, make_cohort
from simulations.phantom.reports import chest_vocabulary

__all__ = ["ChestCase", "CohortCard", "chest_case", "chest_vocabulary", "make_cohort"]
