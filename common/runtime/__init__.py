"""Processes, the release they run, the machine under them, and command lines."""
