"""Federated against centralized, local and control arms on the same splits, with paired statistics."""
