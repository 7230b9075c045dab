"""How long things take: rounds, aggregation, sizes. Benchmarks, never assertions."""
