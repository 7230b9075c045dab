"""How updates become one state: pure functions of updates, one file per family."""
