"""Backbones that a pretraining of this federation's own makes, rather than a checkpoint of other people."""
