"""Statistics that centers told before any training, side by side: who differs from whom, and in what."""
