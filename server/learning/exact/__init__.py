"""Steps that are fitted from sums, question by question."""
