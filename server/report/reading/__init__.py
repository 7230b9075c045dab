"""What a report reads from the events of runs: scores, what replaced them, and what crossed the network."""
