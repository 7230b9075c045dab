"""The coordinator: curricula, rounds, aggregation, evaluation, report. It cannot open a patient file."""
