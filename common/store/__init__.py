"""What a run remembers: the bank of adapters, the ledger of events, a bank exported."""
