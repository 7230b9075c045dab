"""Secure sums: a server adds up what centers send and can open no single one (Bonawitz et al. 2017, double masks).

Five phases; in each the server hands on what centers said, and decides nothing that they do not check:

1. ``keys``: a center makes keys for this question alone and signs them with its enrolled key.
2. ``share``: it cuts its two secrets into shares, one sealed for each other center.
3. ``mask``: it sends its numbers under its own mask and one mask with each other center, which cancel in the sum; and,
   signed, which parts of the step it trained.
4. ``agree``: it signs the list of those whose numbers came.
5. ``reveal``: with enough signatures on one list it gives one share of each center: of a survivor's own mask, or of the
   pair key of one that dropped out. Never both of one center: together they would open its numbers.
"""
