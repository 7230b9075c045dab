"""Leakage, measured: ``python -m simulations audit`` attacks what this code releases, with and without its noise."""
