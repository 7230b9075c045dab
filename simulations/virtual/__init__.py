"""Whole federations on one machine: LocalGrid, Ray, loopback deployments, faults."""
