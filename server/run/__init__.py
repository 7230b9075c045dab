"""A run's folder and what is done with it: lineages, narration, probes, results, export."""
