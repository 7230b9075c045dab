"""Whole federations on one machine, the synthetic cohort, baselines and benchmarks."""

from common.config.compose.registry import extend
from simulations.extension import EXTENSION

extend(EXTENSION)
