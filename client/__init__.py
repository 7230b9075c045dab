"""Everything that runs inside a hospital; the only code that can open a patient file."""
