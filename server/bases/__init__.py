"""Bases that grow: which frozen model each step stands on, and how a finished step becomes part of the next one."""
