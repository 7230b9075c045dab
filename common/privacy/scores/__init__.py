"""Scores that carry noise: of each task one ratio of sums to which a patient adds at most a public number."""

from common.privacy.scores.ratios import RATIOS, Ratio, ratio_of
from common.privacy.scores.task import NoisedScores, scored_task

__all__ = ["RATIOS", "NoisedScores", "Ratio", "ratio_of", "scored_task"]
