"""Pretraining on random shapes: label maps that nobody drew, rendered twice, contrasted voxel by voxel."""
