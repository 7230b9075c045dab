"""Whole federations on one machine, the synthetic cohort, baselines and benchmarks."""
