"""The exact federation: linear models on frozen features, fitted from sums, equal to the pooled fit."""
