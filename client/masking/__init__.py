"""This hospital's half of secure sums: what it signs, what it keeps between two messages, what it answers."""
