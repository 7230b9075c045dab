"""What both sides must agree on: configuration, model, adapters, tasks, wire format. No patient data."""
