"""The server's half of secure sums: the phases asked for, and the rounds and scores that it knows as sums alone."""
