"""Acceptance: whether a frozen model matters, judged on cases that nothing was chosen by, opened once."""
