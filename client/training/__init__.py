"""The one local training loop, and prediction."""
