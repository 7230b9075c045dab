"""What the privacy account says to people: a statement of what is spent and planned, as a table and as a figure."""
