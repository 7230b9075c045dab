"""doctor: what can go wrong before a round, seen in files, tables, the machine and the way to the server."""
