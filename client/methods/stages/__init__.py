"""Self-supervised stages, as MedCoSS has them: what is rehearsed of earlier stages, and how."""
