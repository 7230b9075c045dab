"""Noise that a center draws for a step: how much, found once, and the answers that carry it."""
