"""Metrics as pure functions of counts, so that centers' counts can be added and divided once.

Counts are numpy float64. A value that the counts do not define (no comparable pair, an empty structure) is None.
Concordance is about the order of relapses, survival about curves at the run's cuts, labels about classes, overlap about
volumes, resampling about draws of patients, estimate about intervals and how they are written.
"""

from common.metrics.concordance import (
    HarrellCounts,
    PairSpread,
    antolini_counts,
    concordance_index,
    concordance_interval,
    harrell_counts,
    pair_spread,
    ranked_pairs,
    uno_sums,
)
from common.metrics.estimate import Estimate, Resampled, percentile_interval, written
from common.metrics.labels import (
    SCORE_BINS,
    TEMPERATURES,
    auprc_from_counts,
    auroc_from_counts,
    auroc_interval,
    balanced_accuracy,
    best_temperature,
    calibration_error,
    score_bins,
    score_of_bin,
)
from common.metrics.overlap import dsc_agg, mean_defined, mean_interval
from common.metrics.resampling import (
    Pairs,
    bootstrap_additive,
    bootstrap_concordance,
    bootstrap_median,
    bootstrap_pairs,
    bootstrap_weights,
    pairs_of,
)
from common.metrics.survival import (
    CALIBRATION_BINS,
    breslow,
    breslow_counts,
    brier_sums,
    censoring_counts,
    censoring_survival,
    d_calibration,
    d_calibration_counts,
    dynamic_auc_sums,
    integrated,
    kaplan_meier,
    log_rank,
    reliability_sums,
)

LOWER_IS_BETTER = frozenset({"brier", "ece", "hd95", "ibs", "loss", "mae", "nll"})

__all__ = [
    "CALIBRATION_BINS",
    "LOWER_IS_BETTER",
    "SCORE_BINS",
    "TEMPERATURES",
    "Estimate",
    "HarrellCounts",
    "PairSpread",
    "Pairs",
    "Resampled",
    "antolini_counts",
    "auprc_from_counts",
    "auroc_from_counts",
    "auroc_interval",
    "balanced_accuracy",
    "best_temperature",
    "bootstrap_additive",
    "bootstrap_concordance",
    "bootstrap_median",
    "bootstrap_pairs",
    "bootstrap_weights",
    "breslow",
    "breslow_counts",
    "brier_sums",
    "calibration_error",
    "censoring_counts",
    "censoring_survival",
    "concordance_index",
    "concordance_interval",
    "d_calibration",
    "d_calibration_counts",
    "dsc_agg",
    "dynamic_auc_sums",
    "harrell_counts",
    "integrated",
    "kaplan_meier",
    "log_rank",
    "mean_defined",
    "mean_interval",
    "pair_spread",
    "pairs_of",
    "percentile_interval",
    "ranked_pairs",
    "reliability_sums",
    "score_bins",
    "score_of_bin",
    "uno_sums",
    "written",
]
