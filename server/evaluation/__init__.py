"""Scores: asking centers for sums, and the matrix over steps that shows forgetting."""
