"""Arms that no round trains: exact fits of the frozen features, and trivial rules, as records of test patients."""
