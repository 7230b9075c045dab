"""How a command line becomes a run: Hydra, the groups' presets, what a package on top adds, and short forms."""
