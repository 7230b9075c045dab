"""What a reader must take away first: one line for each task, and the run's own bad news, found by rule."""
