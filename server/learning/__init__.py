"""How a step is learned: the round loop, the strategy, the exact fit, withdrawal."""
