"""Volumes: read, checked, cropped, resampled, changed for training, cached."""
