"""What bounds a step, whoever sends it: its text, its patterns, its sizes, and how long it trains."""
